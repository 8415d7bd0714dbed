"""The states that every child workload is reduced to."""

from enum import StrEnum


class WorkloadState(StrEnum):
    """Where a child is in its life."""

    SUSPENDED = "Suspended"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


def true_conditions(status: dict[str, object]) -> set[str]:
    """The types of the conditions that hold."""
    conditions = status.get("conditions")
    if not isinstance(conditions, list):
        return set()
    return {c["type"] for c in conditions if isinstance(c, dict) and c.get("status") == "True"}
