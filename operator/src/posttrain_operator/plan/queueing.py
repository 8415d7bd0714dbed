"""Queues and quotas in the life of an attempt: when it may begin, when its children come, and when it lets go."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.resources import Resource
from posttrain_operator.api.status import Attempt, Status
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Reason
from posttrain_operator.observe import kueue
from posttrain_operator.observe.facts import AttemptFacts, Observed
from posttrain_operator.observe.raw import mapping
from posttrain_operator.observe.surroundings import PAIRS
from posttrain_operator.observe.workload import WorkloadState
from posttrain_operator.plan import ending
from posttrain_operator.plan.admission import admission, is_admitted, is_unmanaged
from posttrain_operator.plan.clock import ZERO, pause_left
from posttrain_operator.plan.ending import End
from posttrain_operator.plan.line import NOTICE, turn, was_seen
from posttrain_operator.plan.quota import shortage
from posttrain_operator.plan.types import Admission, Plan, State
from posttrain_operator.settings import Settings

_MOST_DOUBLINGS: Final = 6
_POLL: Final = timedelta(seconds=30)
"""Look again this often while others hold what is needed; events usually come first."""


def told(
    resource: Resource, observed: Observed, facts: AttemptFacts | None, settings: Settings, *, now: datetime
) -> Admission | None:
    """What the queue says to the present attempt; None without a queue."""
    workloads = observed.surroundings.workloads
    children = 2 if _is_pair(resource) else 1
    return admission(facts, workloads, settings, queue=resource.run.queue, now=now, children=children)


def obstacle(resource: Resource, observed: Observed, settings: Settings, *, now: datetime) -> Plan | None:
    """What to do while the next attempt may not begin yet, its history apart."""
    wait = _wait(resource, observed, settings, now=now)
    if wait is None:
        return None
    said = Admission(wait.reason, wait.message, stalled=wait.stalled) if resource.run.queue is not None else None
    soon = wait.reason == Reason.WAITING_FOR_TURN and not was_seen(observed.status, now)
    return Plan(wait, requeue_after=NOTICE if soon else _POLL, admission=said)


def _wait(resource: Resource, observed: Observed, settings: Settings, *, now: datetime) -> State | None:
    last = observed.status.attempts[-1] if observed.status.attempts else None
    if resource.run.queue is None:
        return shortage(observed.surroundings)
    unmanaged = last is not None and last.reason == Reason.QUEUE_NOT_MANAGED
    if last is not None and unmanaged and pause_left([last], settings.queue_hold, settings.queue_hold, now) > ZERO:
        return State("Queued", Reason.QUEUE_NOT_MANAGED, last.message or "", stalled=True)
    return turn(observed.surroundings, observed.status, now=now) if _is_pair(resource) else None


def may_train(observed: Observed, facts: AttemptFacts | None) -> bool:
    """Whether the trainer may follow its servers: with a queue when that admitted them, else when they answer.

    The trainer waits for its servers itself; while they load, nobody else has to wait for the queue.
    """
    if facts is None or facts.servers is None:
        return False
    if kueue.queue_of(facts.servers) is None:
        return facts.servers_ready
    return is_admitted(facts.servers, observed.surroundings.workloads)


def ended(
    resource: Resource, observed: Observed, facts: AttemptFacts, settings: Settings, *, now: datetime
) -> End | None:
    """How the attempt ended, by itself or because its queue did not admit all of it; None while it goes on.

    What Kueue takes back is no end where one child is all there is: the same child goes on when it is admitted again.
    """
    end = ending.ended(facts, observed.status.open_attempt)
    if end is None or end.outcome == "Succeeded":
        return end or _let_go(resource, observed, facts, settings, now=now)
    taken_back = bool(_evictions(facts, observed.surroundings.workloads))
    main_ended = facts.state in (WorkloadState.SUCCEEDED, WorkloadState.FAILED)
    if not (_is_pair(resource) or main_ended) and (
        taken_back or (facts.main is not None and kueue.is_suspended(facts.main))
    ):
        return None
    if end.outcome == "Failed" and end.retriable and taken_back:
        # Pods that Kueue stopped and that could not say so, or that lost those it stopped, are no failure.
        return replace(end, outcome="Preempted", reason=Reason.PREEMPTED)
    return end


def _let_go(
    resource: Resource, observed: Observed, facts: AttemptFacts, settings: Settings, *, now: datetime
) -> End | None:
    """The end of an attempt that its queue has not admitted: it costs no retry, and whatever it holds is freed."""
    history = observed.status.attempts
    said = told(resource, observed, facts, settings, now=now)
    if said is None or said.holds or not history or history[-1].end_time is not None:
        return None
    if (change := _change(resource, facts)) is not None:
        return End("Released", retriable=True, reason=Reason.QUEUE_CHANGED, message=change)
    return _pair_lets_go(observed, facts, said, settings, now=now) if _is_pair(resource) else None


def _pair_lets_go(
    observed: Observed, facts: AttemptFacts, said: Admission, settings: Settings, *, now: datetime
) -> End | None:
    workloads = observed.surroundings.workloads
    if observed.status.holds("Admitted") and _evictions(facts, workloads):
        # A trainer that starts anew cannot go on with servers that know its predecessor, and neither is of use alone.
        return End("Preempted", retriable=True, reason=Reason.PREEMPTED, message=said.message)
    servers = facts.servers
    if servers is not None and is_unmanaged(servers, workloads, settings, now=now) and not _gated(facts):
        return End("Released", retriable=True, reason=Reason.QUEUE_NOT_MANAGED, message=said.message)
    since = _holds_since(observed.status, facts, workloads, now=now)
    patience = hold_time(observed.status.attempts, settings)
    if since is None or now - since < patience:
        return None
    message = f"held a part of its quota for {patience} without the rest, and let it go for others: {said.message}"
    return End("Released", retriable=True, reason=Reason.QUOTA_RELEASED, message=message)


def hold_time(attempts: Sequence[Attempt], settings: Settings) -> timedelta:
    """How long a part of the quota may be held; in a busy queue the rest may take longer than the first time."""
    in_vain = 0
    for attempt in reversed([attempt for attempt in attempts if attempt.end_time is not None]):
        if attempt.reason != Reason.QUOTA_RELEASED:
            break
        in_vain += 1
    held: timedelta = settings.queue_hold * 2 ** min(in_vain, _MOST_DOUBLINGS)
    return held


def _holds_since(status: Status, facts: AttemptFacts, workloads: Sequence[Json], *, now: datetime) -> datetime | None:
    """Since when a part of the quota is held without the rest."""
    own = [kueue.workload_of(child, workloads) for child in (facts.servers, facts.main) if child is not None]
    held = [workload.reserved.since for workload in own if workload is not None and workload.reserved is not None]
    condition = status.condition("Admitted")
    if not held or condition is None or not status.attempts:
        return None
    told = (min(held), condition.last_transition_time, status.attempts[-1].start_time)
    # What seems to come was written by a clock that was wrong, and would be waited for.
    return max((moment for moment in told if moment <= now), default=None)


def _evictions(facts: AttemptFacts, workloads: Sequence[Json]) -> list[str]:
    """Why Kueue has taken back admissions of the attempt, where its pods did not bring that about themselves."""
    own = [kueue.workload_of(child, workloads) for child in (facts.servers, facts.main) if child is not None]
    reasons = [workload.evicted.reason for workload in own if workload is not None and workload.evicted is not None]
    return [reason for reason in reasons if not reason.startswith(kueue.RETRIED_BY_KUEUE)]


def _change(resource: Resource, facts: AttemptFacts) -> str | None:
    """How ``run`` and the children differ in what matters to a queue."""
    run = resource.run
    for child in (facts.servers, facts.main):
        if child is None:
            continue
        own = mapping(child["metadata"].get("labels"))
        was, priority = own.get(labels.RUN_QUEUE), own.get(labels.PRIORITY)
        if was != run.queue:
            return f"run.queue was changed from {was or 'none'} to {run.queue or 'none'} while the children waited"
        if run.queue is not None and run.priority_class is not None and priority != run.priority_class:
            return f"run.priorityClass was changed from {priority or 'none'} to {run.priority_class}"
    return None


def _gated(facts: AttemptFacts) -> bool:
    """Whether Kueue holds the servers' pods back, so that they use nothing."""
    return bool(facts.pods) and all(kueue.is_gated(pod.raw) for pod in facts.pods if pod.alive)


def _is_pair(resource: Resource) -> bool:
    return resource.ref.kind in PAIRS
