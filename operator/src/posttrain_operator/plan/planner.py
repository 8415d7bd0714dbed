"""The plan of one pass: which children should exist now, and what to say.

    succeeded? -> suspended? -> ended? -> too late? -> inputs there? -> attempt under way, or the next one

Everything here is a function of its arguments; the clock is one of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.rl import RLSpec

from posttrain_operator.api.quantities import to_timedelta
from posttrain_operator.api.resources import Resource
from posttrain_operator.api.status import Attempt, InputStatus, Status
from posttrain_operator.cluster import Json
from posttrain_operator.errors import Waiting
from posttrain_operator.labels import Reason
from posttrain_operator.observe.facts import AttemptFacts, Observed
from posttrain_operator.observe.workload import WorkloadState
from posttrain_operator.plan import attempts as life
from posttrain_operator.plan import filterjob, finetunejob, rljob, uploadjob
from posttrain_operator.plan.inputs import Inputs, resolve
from posttrain_operator.plan.rljob import ServerAddress
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.settings import Settings

_POLL = timedelta(seconds=30)
"""Look again this often while something outside must happen; events usually come first."""


def plan(resource: Resource, observed: Observed, settings: Settings, *, now: datetime, address: ServerAddress) -> Plan:
    """The plan for an object that has not finished. Raises ``InvalidSpec``; see ``inputs.resolve``."""
    history = observed.status.attempts
    number, facts = _present_attempt(history, observed)
    running = history and history[-1].end_time is None
    end = life.ended(facts) if facts is not None else None
    if end is not None and end.outcome == "Succeeded":
        return _after(resource, _opened(history, number, now), facts, end, settings, now=now)
    if resource.run.suspend:
        return _suspended(history, lingering(observed.attempts), now, pods_alive=observed.pods_alive)
    if end is not None:
        return _after(resource, _opened(history, number, now), facts, end, settings, now=now)
    if running and facts is None:
        return _after(resource, history, None, life.lost(), settings, now=now)
    if _past_deadline(resource, observed.status, now):
        return _past(history, lingering(observed.attempts), now, resource)
    try:
        inputs = resolve(resource, observed.upstreams, settings, pinned=observed.status.inputs)
    except Waiting as waiting:
        state = State("Waiting", waiting.reason, str(waiting), stalled=waiting.stalled)
        return Plan(state, attempts=history, requeue_after=_POLL)
    if facts is None and (observed.pods_alive or lingering(observed.attempts, before=number)):
        state = State("Pending", Reason.STOPPING, "pods of the last attempt are still ending")
        return Plan(state, delete=lingering(observed.attempts, before=number), attempts=history, requeue_after=_POLL)
    if facts is None and (pause := _pause(history, settings, now)) > timedelta():
        return replace(_retrying(history), requeue_after=pause)
    create = _missing(_children(resource, inputs, number, settings, facts=facts, address=address), facts)
    return Plan(
        _state(resource, facts),
        create=create,
        attempts=_opened(history, number, now),
        inputs={name: InputStatus(uri=i.uri, digest=i.digest) for name, i in inputs.resolved.items()},
        requeue_after=settings.progress_interval,
    )


def lingering(attempts: Mapping[int, AttemptFacts], *, before: int | None = None) -> tuple[Json, ...]:
    """What still costs something of all attempts, or of those with a number below ``before``."""
    over = [facts for number, facts in attempts.items() if before is None or number < before]
    return tuple(child for facts in over for child in _surplus(facts))


def _present_attempt(history: tuple[Attempt, ...], observed: Observed) -> tuple[int, AttemptFacts | None]:
    """The attempt to look at: the last one if it is open, else the next, whose children may exist already.

    Where the history was lost, the newest children tell the number, so that nothing at work is stopped.
    """
    last = history[-1] if history else None
    if last is not None and last.end_time is None:
        number = last.number
    else:
        existing = [number for number, facts in observed.attempts.items() if facts.exists]
        number = max([(last.number if last else 0) + 1, *existing])
    facts = observed.attempts.get(number)
    return number, facts if facts is not None and facts.exists else None


def _opened(history: tuple[Attempt, ...], number: int, now: datetime) -> tuple[Attempt, ...]:
    if history and history[-1].number == number:
        return history
    return (*history, Attempt(number=number, start_time=now))


def _closed(history: tuple[Attempt, ...], end: life.End, now: datetime) -> tuple[Attempt, ...]:
    return (*history[:-1], life.close(history[-1], end, now))


def _suspended(history: tuple[Attempt, ...], at_work: tuple[Json, ...], now: datetime, *, pods_alive: bool) -> Plan:
    """Deletes what is at work, which saves a checkpoint, and closes the attempt when it is gone."""
    if at_work or pods_alive:
        state = State("Suspended", Reason.SUSPENDED, "stopping after a checkpoint")
        return Plan(state, delete=at_work, attempts=history, requeue_after=_POLL)
    if history and history[-1].end_time is None:
        end = life.End("Suspended", retriable=True, reason=Reason.SUSPENDED, message="run.suspend was set")
        history = _closed(history, end, now)
    return Plan(State("Suspended", Reason.SUSPENDED, "set run.suspend to false to go on"), attempts=history)


def _past_deadline(resource: Resource, status: Status, now: datetime) -> bool:
    deadline, since = resource.run.deadline, status.start_time
    return deadline is not None and since is not None and now - since > to_timedelta(deadline)


def _past(history: tuple[Attempt, ...], at_work: tuple[Json, ...], now: datetime, resource: Resource) -> Plan:
    message = f"not finished after run.deadline ({resource.run.deadline})"
    if history and history[-1].end_time is None:
        history = _closed(
            history, life.End("Failed", retriable=False, reason=Reason.DEADLINE_EXCEEDED, message=message), now
        )
    return Plan(State("Failed", Reason.DEADLINE_EXCEEDED, message, stalled=True), delete=at_work, attempts=history)


def _after(
    resource: Resource,
    history: tuple[Attempt, ...],
    facts: AttemptFacts | None,
    end: life.End,
    settings: Settings,
    *,
    now: datetime,
) -> Plan:
    """What follows the end of an attempt: success, failure, or another attempt after a pause."""
    history = _closed(history, end, now)
    delete = _surplus(facts) if facts is not None else ()
    if end.outcome == "Succeeded" and end.result is not None:
        state = State("Succeeded", Reason.SUCCEEDED, "the artifact is published and verified")
        return Plan(state, delete=delete, attempts=history, metrics=end.result.metrics, artifact=end.result.artifact)
    used_up = life.failures(history) > resource.run.retries
    if not end.retriable or used_up:
        number = history[-1].number
        attempts = f" (after {number} attempts)" if number > 1 else ""
        return Plan(
            State("Failed", end.reason, f"{end.message}{attempts}", stalled=True), delete=delete, attempts=history
        )
    return replace(_retrying(history), delete=delete, requeue_after=life.backoff(history, settings))


def _retrying(history: tuple[Attempt, ...]) -> Plan:
    last = history[-1]
    message = f"attempt {last.number} ended: {last.reason or last.outcome}: {last.message or ''}".rstrip(": ")
    return Plan(State("Pending", Reason.RETRYING, message), attempts=history)


def _pause(history: tuple[Attempt, ...], settings: Settings, now: datetime) -> timedelta:
    """What is left of the pause before the next attempt."""
    if not history or history[-1].end_time is None:
        return timedelta()
    return history[-1].end_time + life.backoff(history, settings) - now


def _surplus(facts: AttemptFacts) -> tuple[Json, ...]:
    """Children of an ended attempt that still cost something; ended workloads stay for their logs."""
    over = facts.state in (WorkloadState.SUCCEEDED, WorkloadState.FAILED)
    return tuple(c for c in facts.children if c["kind"] in ("StatefulSet", "Service") or (c is facts.main and not over))


def _children(
    resource: Resource,
    inputs: Inputs,
    number: int,
    settings: Settings,
    *,
    facts: AttemptFacts | None,
    address: ServerAddress,
) -> list[Json]:
    spec = resource.spec
    if isinstance(spec, FilterSpec):
        return filterjob.children(resource, spec, inputs, number, settings)
    if isinstance(spec, FineTuneSpec):
        return finetunejob.children(resource, spec, inputs, number, settings)
    if isinstance(spec, RLSpec):
        servers = rljob.servers(resource, spec, inputs, number, settings)
        if facts is None or not (facts.servers_ready or facts.main is not None):
            return servers
        return [*servers, *rljob.trainer(resource, spec, inputs, number, settings, address=address)]
    return uploadjob.children(resource, spec, inputs, number, settings)


def _missing(children: list[Json], facts: AttemptFacts | None) -> tuple[Json, ...]:
    """The children that do not exist yet. Existing ones are never changed: they belong to a queue and a controller."""
    if facts is not None and facts.main is not None:
        return ()
    have = {(child["kind"], child["metadata"]["name"]) for child in facts.children} if facts else set()
    return tuple(child for child in children if (child["kind"], child["metadata"]["name"]) not in have)


def _state(resource: Resource, facts: AttemptFacts | None) -> State:
    """What the attempt is doing, or will be once its children are created."""
    state = facts.state if facts is not None else None
    if state is None:
        if isinstance(resource.spec, RLSpec) and not (facts is not None and facts.servers_ready):
            return State("Starting", Reason.STARTING, "rollout servers are starting")
        state = WorkloadState.SUSPENDED if resource.run.queue is not None else WorkloadState.PENDING
    if state is WorkloadState.SUSPENDED:
        return State("Queued", Reason.QUEUED, f"waiting for quota in queue {resource.run.queue}")
    if facts is not None and state is WorkloadState.RUNNING:
        return State("Running", Reason.RUNNING, f"attempt {facts.number} is at work")
    return State("Starting", Reason.STARTING, "pods are starting")
