"""``run.deadline`` and ``run.pendingDeadline``."""

from datetime import datetime, timedelta

from posttrain_operator.api.quantities import to_timedelta
from posttrain_operator.api.resources import Resource
from posttrain_operator.labels import Reason
from posttrain_operator.observe.facts import AttemptFacts, Observed
from posttrain_operator.plan.clock import first_of, time_at_work
from posttrain_operator.plan.ending import End


def passed(resource: Resource, observed: Observed, facts: AttemptFacts | None, now: datetime) -> End | None:
    """The end of a job that took too long, or that did not start in time.

    ``pendingDeadline`` counts from the first attempt on, which is opened once its inputs are there, until an attempt is
    on record as having run; so it is the time at work of a job no attempt of which ever ran, see ``time_at_work``.
    """
    spent = time_at_work(resource, observed.status, observed.attempts, now)
    deadline, pending = _allowed(resource, observed)
    if spent is None:
        return None
    if deadline is not None and spent >= deadline:
        return _end(Reason.DEADLINE_EXCEEDED, f"not finished after run.deadline ({resource.run.deadline})")
    if pending is not None and spent >= pending and not (facts is not None and facts.at_work):
        message = f"no attempt ran within run.pendingDeadline ({resource.run.pending_deadline})"
        ready = observed.status.condition("Ready")
        why = f"; at last {ready.reason}: {ready.message}" if ready is not None else ""
        return _end(Reason.PENDING_DEADLINE_EXCEEDED, message + why)
    return None


def left(resource: Resource, observed: Observed, now: datetime) -> timedelta | None:
    """The time until the next of them passes; None where none will."""
    spent = time_at_work(resource, observed.status, observed.attempts, now)
    limit = first_of(*_allowed(resource, observed))
    return None if limit is None else max(timedelta(), limit - (spent or timedelta()))


def _allowed(resource: Resource, observed: Observed) -> tuple[timedelta | None, timedelta | None]:
    """The two limits, as far as they still count."""
    deadline, pending = resource.run.deadline, resource.run.pending_deadline
    ran = any(attempt.ran for attempt in observed.status.attempts)
    return to_timedelta(deadline) if deadline else None, to_timedelta(pending) if pending and not ran else None


def _end(reason: Reason, message: str) -> End:
    return End("Failed", retriable=False, reason=reason, message=message)
