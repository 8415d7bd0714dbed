"""Builds a PyTorchJob (kubeflow.org/v1): the only module, with ``observe/pytorchjob.py``, that knows its vocabulary."""

from typing import Final

from posttrain_operator.cluster import Json
from posttrain_operator.observe.pytorchjob import API_VERSION, KIND
from posttrain_operator.plan.metadata import Child

CONTAINER = "pytorch"
"""The training operator insists on this container name."""


_RENDEZVOUS_PORT: Final = 23456
"""The one that the training operator opens in the Service of every pod."""
_INDEX: Final = "training.kubeflow.org/replica-index"
"""The label of a pod with its number in the gang, from 0."""


def pytorchjob(child: Child, template: Json, *, nodes: int, processes_per_node: int) -> Json:
    """A gang of ``nodes`` pods. One attempt: no restart, no deadline and no TTL of its own.

    With a queue it is created suspended, so that it fails safe where no queue manages it. All of its pods are workers:
    beside a master, the training operator gives workers an init container that no restricted namespace admits, and
    ends the others when the master has ended. What torchrun asks for is told here, then.
    """
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
            "pytorchReplicaSpecs": {
                "Worker": {
                    "replicas": nodes,
                    "restartPolicy": "Never",
                    "template": _with_rendezvous(template, f"{child.name}-worker-0"),
                }
            },
        },
    }


def _with_rendezvous(template: Json, first: str) -> Json:
    """The template of a pod that finds the first of its gang, and knows its own number in it."""
    (container,) = template["spec"]["containers"]
    told = [
        {"name": "PET_MASTER_ADDR", "value": first},
        {"name": "PET_MASTER_PORT", "value": str(_RENDEZVOUS_PORT)},
        {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{_INDEX}']"}}},
    ]
    container = {**container, "env": [*container["env"], *told]}
    return {**template, "spec": {**template["spec"], "containers": [container]}}
