"""The line of objects that need two admissions from one queue: one at a time, oldest first.

Two of them that each hold one half of what there is would wait for each other for ever. Everything here is read from
the objects' status, so whoever looks, whenever, finds the same one first.
"""

from datetime import datetime, timedelta
from typing import Final

from posttrain_operator.api.status import Status
from posttrain_operator.labels import Reason
from posttrain_operator.observe.contenders import Contender
from posttrain_operator.observe.surroundings import Surroundings
from posttrain_operator.plan.types import State

NOTICE: Final = timedelta(seconds=1)
"""An object stands in the line for so long before it may be first, so that passes at the same moment see each other."""


def turn(surroundings: Surroundings, status: Status, *, now: datetime) -> State | None:
    """Why the object must let others go first, or None when it is its turn."""
    me = surroundings.me
    others = [other for other in surroundings.contenders if not (other.over or other.admitted or other.stuck)]
    if me is None or not others:
        return None
    first = [other for other in others if other.attempt is not None]
    before = [other for other in others if _stands(other) and other.turn < me.turn]
    if not first and not before and was_seen(status, now):
        return None
    return State("Queued", Reason.WAITING_FOR_TURN, _message(me, [*first, *before]))


def _stands(other: Contender) -> bool:
    """Whether it waits in the line, or would as soon as it is looked at."""
    return other.attempt is None and (other.unseen or other.reason == Reason.WAITING_FOR_TURN)


def was_seen(status: Status, now: datetime) -> bool:
    """Whether an object has stood in the line for long enough to be seen by all."""
    ready, admitted = status.condition("Ready"), status.condition("Admitted")
    if ready is None or admitted is None or ready.reason != Reason.WAITING_FOR_TURN:
        return False
    return not timedelta() <= now - admitted.last_transition_time < NOTICE  # a moment to come tells nothing


def _message(me: Contender, before: list[Contender]) -> str:
    rule = f"objects with two children take their quota from queue {me.queue} one after the other"
    if not before:
        return rule
    count = len(before)
    who = "another" if count == 1 else f"{count} others" if count <= 3 else "several others"
    return f"{rule}; {who} come{'s' if count == 1 else ''} first"
