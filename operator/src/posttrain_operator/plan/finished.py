"""What is left of a finished job, and for how long: ``run.ttlAfterFinished``."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from posttrain_operator.api.quantities import to_timedelta
from posttrain_operator.api.run import RunSpec
from posttrain_operator.api.status import Status
from posttrain_operator.cluster import Json
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.plan.clock import ZERO, last_end, since
from posttrain_operator.plan.planner import lingering


def after_finish(
    status: Status, run: RunSpec | None, attempts: Mapping[int, AttemptFacts], *, now: datetime
) -> tuple[tuple[Json, ...], timedelta | None]:
    """The children of a finished job to delete now, and when to look again; None when nothing is to come.

    At once goes what still costs something; when the time of ``run.ttlAfterFinished`` is over everything goes, and
    with it the pods, their logs and their scratch space. The object itself and its artifact stay. ``run`` is None where
    the spec no longer parses; then nothing more goes. The time counts from the end of the job as it is on record, also
    when the field is set or changed later.
    """
    children = tuple(child for facts in attempts.values() for child in facts.children)
    ttl = run.ttl_after_finished if run is not None else None
    if ttl is None or not children:
        return lingering(attempts), None
    left = to_timedelta(ttl) - since(last_end(status, attempts, now), now)
    return (lingering(attempts), left) if left > ZERO else (children, None)
