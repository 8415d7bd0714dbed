"""Job (batch/v1)."""

from posttrain_operator.cluster import Json
from posttrain_operator.observe.raw import mapping
from posttrain_operator.observe.workload import WorkloadState, true_conditions

API_VERSION = "batch/v1"
KIND = "Job"


def observe(child: Json) -> WorkloadState:
    """The state of a Job."""
    status = mapping(child.get("status"))
    holding = true_conditions(status)
    if "Failed" in holding:
        return WorkloadState.FAILED
    if "Complete" in holding:
        return WorkloadState.SUCCEEDED
    if mapping(child.get("spec")).get("suspend"):
        return WorkloadState.SUSPENDED
    return WorkloadState.RUNNING if status.get("ready") else WorkloadState.PENDING
