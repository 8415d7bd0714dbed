"""What people are told when the status changes: one event a transition, with a name that a repetition shares."""

import hashlib
from typing import Final, Literal

from posttrain_operator.api.status import Condition, Status
from posttrain_operator.cluster import Event
from posttrain_operator.labels import Reason

_QUIET: Final = frozenset({Reason.STARTING, Reason.QUEUED, Reason.WAITING_FOR_ARTIFACT, Reason.STOPPING})
"""Stations of every job's way; the status tells them."""
_NORMAL: Final = frozenset({Reason.RUNNING, Reason.SUCCEEDED, Reason.SUSPENDED, Reason.PREEMPTED})


def transition_events(before: Status, after: Status, *, uid: str) -> list[Event]:
    """The events of a status change: at most one, and none while the reason stays. ``uid`` is the object's."""
    old, new = before.condition("Ready"), after.condition("Ready")
    if new is None or new.reason in _QUIET or (old is not None and old.reason == new.reason):
        return []
    kind: Literal["Normal", "Warning"] = "Normal" if new.reason in _NORMAL else "Warning"
    return [Event(_name(uid, after, new), kind, new.reason, new.message)]


def _name(uid: str, status: Status, ready: Condition) -> str:
    """Equal for equal transitions, so that one which is told again after a crash is told once.

    Of one attempt, a reason is told once: what the scheduler says changes with every look at its nodes.
    """
    context = str(status.attempts[-1].number) if status.attempts else ready.message
    told = f"{uid}/{ready.observed_generation}/{ready.reason}/{context}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]
