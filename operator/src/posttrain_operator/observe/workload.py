"""The states that every child workload is reduced to."""

from enum import StrEnum

from posttrain_operator.observe.raw import mapping, mappings, text


class WorkloadState(StrEnum):
    """Where a child is in its life."""

    SUSPENDED = "Suspended"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


def true_conditions(status: object) -> set[str]:
    """The types of the conditions that hold."""
    conditions = mappings(mapping(status).get("conditions"))
    return {text(c.get("type")) for c in conditions if c.get("status") == "True"} - {""}


def creation_failure(child: object) -> str | None:
    """Why a controller cannot make its pods, where its conditions tell."""
    for condition in mappings(mapping(mapping(child).get("status")).get("conditions")):
        failed = condition.get("type") == "ReplicaFailure" or condition.get("reason") == "FailedCreate"
        if failed and condition.get("status") == "True":
            return text(condition.get("message")) or "no reason given"
    return None
