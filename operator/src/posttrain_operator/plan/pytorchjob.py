"""Builds a PyTorchJob (kubeflow.org/v1): the only module, with ``observe/pytorchjob.py``, that knows its vocabulary."""

from posttrain_operator.cluster import Json
from posttrain_operator.observe.pytorchjob import API_VERSION, KIND
from posttrain_operator.plan.metadata import Child

CONTAINER = "pytorch"
"""The training operator insists on this container name."""


def pytorchjob(child: Child, template: Json, *, nodes: int, processes_per_node: int) -> Json:
    """A gang of ``nodes`` pods. One attempt: no restart, no deadline and no TTL of its own.

    With a queue it is created suspended, so that it fails safe where no queue manages it.
    """
    replicas = {"Master": _replica(template, 1)}
    if nodes > 1:
        replicas["Worker"] = _replica(template, nodes - 1)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": child.queued_metadata(),
        "spec": {
            "nprocPerNode": str(processes_per_node),
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "backoffLimit": 0,
                "suspend": child.resource.run.queue is not None,
            },
            "pytorchReplicaSpecs": replicas,
        },
    }


def _replica(template: Json, replicas: int) -> Json:
    return {"replicas": replicas, "restartPolicy": "Never", "template": template}
