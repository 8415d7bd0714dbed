"""The plan of one pass: which children should exist now, and what to say.

    ended? -> suspended? -> lost? -> too late? -> inputs there? -> attempt under way, or the next one

Everything here is a function of its arguments; the clock is one of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.rl import RLSpec

from posttrain_operator.api.resources import Resource
from posttrain_operator.api.status import Attempt, InputStatus
from posttrain_operator.cluster import Json
from posttrain_operator.errors import Waiting
from posttrain_operator.labels import Reason
from posttrain_operator.observe.facts import AttemptFacts, Observed
from posttrain_operator.observe.raw import covers
from posttrain_operator.observe.workload import WorkloadState
from posttrain_operator.plan import attempts as life
from posttrain_operator.plan import deadlines, filterjob, finetunejob, queueing, rljob, uploadjob
from posttrain_operator.plan.clock import ZERO, first_of, pause_left
from posttrain_operator.plan.ending import End, lost
from posttrain_operator.plan.inputs import Inputs, resolve
from posttrain_operator.plan.rljob import ServerAddress
from posttrain_operator.plan.starting import under_way
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.settings import Settings

_POLL = timedelta(seconds=30)
"""Look again this often while something outside must happen; events usually come first."""


def plan(resource: Resource, observed: Observed, settings: Settings, *, now: datetime, address: ServerAddress) -> Plan:
    """The plan for an object that has not finished. Raises ``InvalidSpec``; see ``inputs.resolve``."""
    decided = _decide(resource, observed, settings, now=now, address=address)
    if decided.state.phase in ("Succeeded", "Failed", "Suspended"):
        return decided
    return replace(decided, requeue_after=first_of(decided.requeue_after, deadlines.left(resource, observed, now)))


def _decide(
    resource: Resource, observed: Observed, settings: Settings, *, now: datetime, address: ServerAddress
) -> Plan:
    history = observed.status.attempts
    number, facts = _present_attempt(history, observed)
    present = observed.status.open_attempt
    end = queueing.ended(resource, observed, facts, settings, now=now) if facts is not None else None
    if end is not None and not _is_suspension(resource, facts, end):
        opened = life.opened(history, number, now)
        told = end.result.revisions if end.result is not None else {}
        followed = _after(resource, observed, opened, facts=facts, end=end, settings=settings, now=now)
        return replace(followed, revisions=told)
    if resource.run.suspend:
        return _suspended(history, lingering(observed.attempts), now, pods_alive=observed.pods_alive)
    if present is not None and present.ran and (facts is None or facts.main is None):
        return _after(resource, observed, history, facts=facts, end=lost(), settings=settings, now=now)
    if (late := deadlines.passed(resource, observed, facts, now)) is not None:
        return _past(history, lingering(observed.attempts), now, late)
    try:
        inputs = resolve(resource, observed.upstreams, settings, pinned=observed.status.inputs)
    except Waiting as waiting:
        state = State("Waiting", waiting.reason, str(waiting), stalled=waiting.stalled)
        return Plan(state, attempts=history, requeue_after=_POLL)
    earlier = lingering(observed.attempts, before=number)
    if (facts is None or facts.main is None) and (observed.others_alive(number) or earlier):
        message = (
            "pods of the last attempt are still ending; should they not, delete what made them, or, if their node is "
            "gone, force their deletion"
        )
        state = State("Pending", Reason.STOPPING, message)
        return Plan(state, delete=earlier, attempts=history, requeue_after=_POLL)
    if facts is None and (pause := _pause(history, settings, now)) > ZERO:
        return replace(_retrying(history), requeue_after=pause)
    opens = facts is None and present is None
    if opens and (wait := queueing.obstacle(resource, observed, settings, now=now)) is not None:
        return replace(wait, attempts=history)
    return _go_on(resource, observed, facts, inputs, settings, number=number, now=now, address=address)


def _go_on(
    resource: Resource,
    observed: Observed,
    facts: AttemptFacts | None,
    inputs: Inputs,
    settings: Settings,
    *,
    number: int,
    now: datetime,
    address: ServerAddress,
) -> Plan:
    """The attempt that is under way, or that begins now."""
    with_trainer = queueing.may_train(observed, facts)
    children = _children(resource, inputs, number, settings, facts=facts, address=address, with_trainer=with_trainer)
    create = _missing(children, facts)
    said = queueing.told(resource, observed, facts, settings, now=now)
    history = observed.status.attempts
    attempts = life.observed(life.opened(history, number, now), facts, now)
    state = under_way(resource, facts, attempts[-1], said)
    return Plan(
        state,
        create=create,
        repair=_out_of_shape(children, facts),
        attempts=attempts,
        inputs={name: InputStatus(uri=i.uri, digest=i.digest) for name, i in inputs.resolved.items()},
        requeue_after=settings.progress_interval if state.phase == "Running" else _POLL,
        admission=said,
        # Names tell attempts apart: a first one can only meet itself, and a later one needs the others to be over.
        confirm=bool(create) and number > 1 and observed.status.open_attempt is None,
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


def _is_suspension(resource: Resource, facts: AttemptFacts | None, end: End) -> bool:
    """Whether an end is the work of ``run.suspend``: but for failures of before, everything then is."""
    if not resource.run.suspend or end.outcome == "Succeeded":
        return False
    return end.outcome != "Failed" or (facts is not None and facts.stopping)


def _suspended(history: tuple[Attempt, ...], at_work: tuple[Json, ...], now: datetime, *, pods_alive: bool) -> Plan:
    """Deletes what is at work, which saves a checkpoint, and closes the attempt when it is gone."""
    if at_work or pods_alive:
        state = State("Suspended", Reason.SUSPENDED, "stopping after a checkpoint")
        return Plan(state, delete=at_work, attempts=history, requeue_after=_POLL)
    if history and history[-1].end_time is None:
        end = End("Suspended", retriable=True, reason=Reason.SUSPENDED, message="run.suspend was set")
        closed = life.closed(history, end, now)
        state = State("Suspended", Reason.SUSPENDED, "set run.suspend to false to go on")
        return Plan(state, attempts=closed, confirm=True)
    return Plan(State("Suspended", Reason.SUSPENDED, "set run.suspend to false to go on"), attempts=history)


def _past(history: tuple[Attempt, ...], at_work: tuple[Json, ...], now: datetime, late: End) -> Plan:
    if history and history[-1].end_time is None:
        history = life.closed(history, late, now)
    state = State("Failed", late.reason, late.message, stalled=True)
    return Plan(state, delete=at_work, attempts=history, confirm=True)  # pods that ran in time may not be seen yet


def _after(
    resource: Resource,
    observed: Observed,
    history: tuple[Attempt, ...],
    *,
    facts: AttemptFacts | None,
    end: End,
    settings: Settings,
    now: datetime,
) -> Plan:
    """What follows the end of an attempt: success, failure, suspension, or another attempt after a pause."""
    history = life.closed(history, end, now, facts)
    delete = _surplus(facts) if facts is not None else ()
    if end.outcome == "Succeeded" and end.result is not None:
        state = State("Succeeded", Reason.SUCCEEDED, "the artifact is published and verified")
        return Plan(
            state,
            delete=delete,
            attempts=history,
            metrics=end.result.metrics,
            artifact=end.result.artifact,
        )
    # What costs no retry ends no job either, also when the user has lowered the retries below what was used.
    used_up = end.outcome == "Failed" and life.failures(history) > resource.run.retries
    if not end.retriable or used_up:
        number = history[-1].number
        attempts = f" (after {number} attempts)" if number > 1 else ""
        state = State("Failed", end.reason, f"{end.message}{attempts}", stalled=True)
        return Plan(state, delete=delete, attempts=history, confirm=end.from_absence)
    if resource.run.suspend:
        return _suspended(history, lingering(observed.attempts), now, pods_alive=observed.pods_alive)
    pause = life.backoff(history, settings)
    return replace(_retrying(history), delete=delete, requeue_after=pause, confirm=end.from_absence)


def _retrying(history: tuple[Attempt, ...]) -> Plan:
    last = history[-1]
    message = f"attempt {last.number} ended: {last.reason or last.outcome}: {last.message or ''}".rstrip(": ")
    reason = Reason.PREEMPTED if last.outcome == "Preempted" else Reason.RETRYING
    return Plan(State("Pending", reason, message), attempts=history)


def _pause(history: tuple[Attempt, ...], settings: Settings, now: datetime) -> timedelta:
    """What is left of the pause before the next attempt."""
    return pause_left(history, life.backoff(history, settings), settings.longest_backoff, now)


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
    with_trainer: bool,
) -> list[Json]:
    spec = resource.spec
    if isinstance(spec, FilterSpec):
        return filterjob.children(resource, spec, inputs, number, settings)
    if isinstance(spec, FineTuneSpec):
        return finetunejob.children(resource, spec, inputs, number, settings)
    if isinstance(spec, RLSpec):
        servers = rljob.servers(resource, spec, inputs, number, settings)
        if not (with_trainer or (facts is not None and facts.main is not None)):
            return servers
        return [*servers, *rljob.trainer(resource, spec, inputs, number, settings, address=address)]
    return uploadjob.children(resource, spec, inputs, number, settings)


def _missing(children: list[Json], facts: AttemptFacts | None) -> tuple[Json, ...]:
    """The children that do not exist yet; once the main child does, only Services are made again.

    Existing ones are never changed, but for Services: they belong to a queue and a controller.
    """
    if facts is not None and facts.main is not None:
        children = [child for child in children if child["kind"] == "Service"]
    have = {(child["kind"], child["metadata"]["name"]) for child in facts.children} if facts else set()
    return tuple(child for child in children if (child["kind"], child["metadata"]["name"]) not in have)


def _out_of_shape(children: list[Json], facts: AttemptFacts | None) -> tuple[Json, ...]:
    """The Services that somebody has changed: without its Service nobody finds a server."""
    there = (
        {child["metadata"]["name"]: child for child in facts.children if child["kind"] == "Service"} if facts else {}
    )
    services = [child for child in children if child["kind"] == "Service" and child["metadata"]["name"] in there]
    return tuple(child for child in services if not covers(there[child["metadata"]["name"]].get("spec"), child["spec"]))
