"""Whether a queue has admitted an attempt, and if not, why: Kueue's conditions in words."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.quantities import moment
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import Reason
from posttrain_operator.observe import kueue, statefulset
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.kueue import WorkloadFacts, workload_of
from posttrain_operator.observe.raw import mapping
from posttrain_operator.observe.workload import WorkloadState
from posttrain_operator.plan.types import Admission
from posttrain_operator.settings import Settings

_CLOSED: Final = ("Inadmissible", "Misconfigured", "Suspended")
"""Kueue's reasons for a queue that admits nobody."""
_POD_SET: Final = re.compile(r"couldn't assign flavors to pod set [^:]+: ")
_STEPS: Final = (1000, 300, 100, 30, 10, 3)


def admission(
    facts: AttemptFacts | None,
    workloads: Sequence[Json],
    settings: Settings,
    *,
    queue: str | None,
    now: datetime,
    children: int = 1,
) -> Admission | None:
    """What a queue says to an attempt of so many ``children``; None where no queue is asked."""
    present = _workload_children(facts)
    asked = queue or next(filter(None, map(kueue.queue_of, present)), None)
    if asked is None and not any(kueue.is_suspended(child) for child in present):
        return None
    said = [(child, _of_child(child, facts, workloads, settings, now=now)) for child in present]
    for child, told in said:
        if not told.holds:
            before = f"{_role(child)}: " if children > 1 else ""
            return Admission(told.reason, before + told.message, stalled=told.stalled)
    if len(present) < children:
        return Admission(Reason.QUEUED, f"waiting in queue {asked}")
    return Admission(Reason.ADMITTED, f"admitted by queue {asked}", holds=True)


def is_admitted(child: Json, workloads: Sequence[Json]) -> bool:
    """Whether a child's pods may run."""
    workload = workload_of(child, workloads)
    if workload is not None and (workload.evicted is not None or workload.admitted or workload.finished):
        return workload.evicted is None
    # Kueue has no other means than these to hold a child back.
    return child["kind"] != statefulset.KIND and not kueue.is_suspended(child)


def is_unmanaged(child: Json, workloads: Sequence[Json], settings: Settings, *, now: datetime) -> bool:
    """Whether nobody has asked a queue for a child, although there was time to."""
    created = moment(child["metadata"].get("creationTimestamp"))
    late = created is not None and now - created > settings.queue_grace
    return late and workload_of(child, workloads) is None and not is_admitted(child, workloads)


def _workload_children(facts: AttemptFacts | None) -> list[Json]:
    """Servers first: the order in which they are admitted."""
    return [child for child in (facts.servers, facts.main) if child is not None] if facts is not None else []


def _of_child(
    child: Json, facts: AttemptFacts | None, workloads: Sequence[Json], settings: Settings, *, now: datetime
) -> Admission:
    if _is_over(child, facts) or is_admitted(child, workloads):
        return Admission(Reason.ADMITTED, "", holds=True)
    workload = workload_of(child, workloads)
    if workload is not None:
        return _waiting(workload, workloads)
    if is_unmanaged(child, workloads, settings, now=now):
        return Admission(Reason.QUEUE_NOT_MANAGED, _unmanaged(child), stalled=True)
    return Admission(Reason.QUEUED, f"waiting in queue {kueue.queue_of(child)}: Kueue has not looked at it yet")


def _is_over(child: Json, facts: AttemptFacts | None) -> bool:
    ended = (WorkloadState.SUCCEEDED, WorkloadState.FAILED)
    return facts is not None and child is facts.main and facts.state in ended


def _waiting(workload: WorkloadFacts, workloads: Sequence[Json]) -> Admission:
    """Why a Workload is not admitted."""
    evicted, told = workload.evicted, workload.waits
    if not workload.active:
        why = f": {evicted.message}" if evicted is not None else ""
        message = f"its Workload is not active{why}; set spec.active of the Workload to true, or apply the object anew"
        return Admission(Reason.DEACTIVATED, message, stalled=True)
    if not workload.queue:
        message = "Kueue manages this namespace, and no queue is named; set run.queue"
        return Admission(Reason.QUEUE_INACTIVE, message, stalled=True)
    place = f"waiting in queue {workload.queue}{_position(kueue.ahead(workload, workloads))}"
    if evicted is not None:
        return _taken_back(workload, workloads, place)
    if workload.reserved is not None:
        checks = workload.checks.message if workload.checks is not None else ""
        return Admission(Reason.CHECKS_PENDING, f"quota is kept in queue {workload.queue}: {checks}".rstrip(": "))
    why = _POD_SET.sub("", told.message) if told is not None else ""
    if workload.never_fits:
        message = f"queue {workload.queue} can never give so much: {why}; ask for less, or for a larger quota"
        return Admission(Reason.NEVER_FITS, message, stalled=True)
    if told is not None and told.reason in _CLOSED:
        message = f"queue {workload.queue} admits nobody: {why}"
        return Admission(Reason.QUEUE_INACTIVE, message, stalled="missing" in why)
    reason = Reason.QUOTA_MISSING if "insufficient" in why else Reason.QUEUED
    return Admission(reason, f"{place}: {why}".rstrip(": "))


def _taken_back(workload: WorkloadFacts, workloads: Sequence[Json], place: str) -> Admission:
    """What to say of an admission that Kueue took back; the same Workload is admitted again when there is quota."""
    evicted, told = workload.evicted, workload.waits
    assert evicted is not None  # noqa: S101 - the caller asked
    # Until its queue is looked at again, Kueue repeats why it was evicted.
    why = f": {_POD_SET.sub('', told.message)}" if told is not None and told.message != evicted.message else ""
    goes_on = f"it goes on from its newest checkpoint; {place}{why}"
    if evicted.reason != kueue.PREEMPTED:
        return Admission(Reason.EVICTED, f"evicted by Kueue ({evicted.reason}): {evicted.message}; {goes_on}")
    whom = kueue.preemptor(workload.preempted or evicted, workloads)
    return Admission(Reason.PREEMPTED, f"preempted {whom}; {goes_on}")


def _position(ahead: int) -> str:
    """Rough where it is large, so that not every admission changes what all the others are told."""
    if ahead == 0:
        return ""
    more = next((step for step in _STEPS if ahead > step), 0)
    return f", behind more than {more} others" if more else f", behind {ahead} other{'s' if ahead > 1 else ''}"


def _unmanaged(child: Json) -> str:
    ref = Ref.of(child)
    framework = {"PyTorchJob": "kubeflow.org/pytorchjob", "Job": "batch/job"}.get(ref.kind, ref.kind.lower())
    if labels.RUN_QUEUE not in mapping(child["metadata"].get("labels")):
        return f"{ref} is suspended, and not by a queue; resume it, or set run.queue"
    return (
        f"no queue takes care of {ref}: install Kueue, or enable {framework} in integrations.frameworks of its "
        "configuration and restart it, or remove run.queue"
    )


def _role(child: Json) -> str:
    return "rollout servers" if child["kind"] == statefulset.KIND else "trainer"
