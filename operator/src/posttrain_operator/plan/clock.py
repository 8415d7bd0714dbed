"""Spans of time by clocks that may be wrong.

The operator's clock may jump, by hours and back. So a span is never negative, and where the API server has put a time
of its own on something that came into being at the same moment, the later of the two counts: what depends on a span
then comes late rather than early. A moment that seems to come was written by a clock that was wrong, and tells nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from posttrain_operator.api.quantities import moment
from posttrain_operator.api.resources import Resource
from posttrain_operator.api.status import Attempt, Status
from posttrain_operator.observe.facts import AttemptFacts

ZERO = timedelta()


def since(then: datetime, now: datetime) -> timedelta:
    """The time from then to now; none where then seems to come."""
    return max(ZERO, now - then)


def time_at_work(
    resource: Resource, status: Status, attempts: Mapping[int, AttemptFacts], now: datetime
) -> timedelta | None:
    """The time since the first attempt was opened, pauses between attempts included, suspensions not; None before.

    All of it is in the status: the job's start, and of every attempt its start, its end and its outcome. The time
    suspended is that from the end of each attempt with the outcome Suspended to the start of the next, or to now.
    """
    history = status.attempts
    if not history:
        return None
    first = _start(resource, 1, status.start_time or history[0].start_time, attempts, now)
    starts = [_start(resource, attempt.number, attempt.start_time, attempts, now) for attempt in history]
    suspended = sum((_suspended(*told) for told in zip(history, starts, [*starts[1:], now], strict=True)), ZERO)
    return max(ZERO, since(first, now) - suspended)


def last_end(status: Status, attempts: Mapping[int, AttemptFacts], now: datetime) -> datetime:
    """When a finished job ended: as it is on record, or as the nodes know of its pods."""
    pods = [pod.finished_at for facts in attempts.values() for pod in facts.pods if pod.finished_at is not None]
    told = [status.completion_time] if status.completion_time is not None else []
    past = [end for end in (*pods, *told) if end <= now]
    return max(past, default=now)


def _start(
    resource: Resource, number: int, told: datetime, attempts: Mapping[int, AttemptFacts], now: datetime
) -> datetime:
    """When an attempt began: as it is on record, or as the API server knows of its children and of the job itself."""
    facts = attempts.get(number)
    children = facts.children if facts is not None else ()
    created = [made for child in children if (made := moment(child["metadata"].get("creationTimestamp")))]
    known = [told, *([min(created)] if created else ()), *([resource.created] if resource.created else ())]
    return max((start for start in known if start <= now), default=now)


def _suspended(attempt: Attempt, start: datetime, following: datetime) -> timedelta:
    """The time between a suspended attempt and what follows; where clocks contradict each other, the most it can be."""
    if attempt.outcome != "Suspended" or attempt.end_time is None:
        return ZERO
    return since(attempt.end_time if attempt.end_time <= following else start, following)


def first_of(*spans: timedelta | None) -> timedelta | None:
    """The shortest of the spans that are known."""
    return min((span for span in spans if span is not None), default=None)


def pause_left(history: Sequence[Attempt], pause: timedelta, longest: timedelta, now: datetime) -> timedelta:
    """What is left of a pause after the last attempt.

    An end that seems to come was written by a clock ahead of ours; it is believed only as far as no pause can be longer
    than the longest one.
    """
    end = history[-1].end_time if history else None
    if end is None or not pause:
        return ZERO
    left = end + pause - now
    return left if ZERO < left <= longest else ZERO
