"""PyTorchJob (kubeflow.org/v1): the only module, with ``plan/pytorchjob.py``, that knows its vocabulary."""

from posttrain_operator.cluster import Json
from posttrain_operator.observe.raw import integer, mapping
from posttrain_operator.observe.workload import WorkloadState, true_conditions

API_VERSION = "kubeflow.org/v1"
KIND = "PyTorchJob"


def observe(child: Json) -> WorkloadState:
    """The state of a PyTorchJob; the last condition in its list is no guide, so terminal ones are asked for first."""
    holding = true_conditions(child.get("status"))
    for condition, state in (
        ("Failed", WorkloadState.FAILED),
        ("Succeeded", WorkloadState.SUCCEEDED),
        ("Suspended", WorkloadState.SUSPENDED),
        ("Running", WorkloadState.RUNNING),
    ):
        if condition in holding:
            return state
    if mapping(mapping(child.get("spec")).get("runPolicy")).get("suspend"):
        return WorkloadState.SUSPENDED
    return WorkloadState.PENDING


def size(child: Json) -> int:
    """The pods that its gang has when it is complete; its condition Running speaks of any of them."""
    replicas = mapping(mapping(child.get("spec")).get("pytorchReplicaSpecs")).values()
    return sum(integer(mapping(replica).get("replicas")) or 0 for replica in replicas)
