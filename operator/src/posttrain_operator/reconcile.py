"""The loop: parse -> observe -> plan -> apply -> status. The same for every kind, and callable at any time.

A process that knows nothing converges: everything it needs is read from the cluster, and what it writes is written
again only when it differs.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from posttrain_contract.progress import Progress

from posttrain_operator.api.resources import Resource, parse, read_spec, upstream_ref, upstream_refs
from posttrain_operator.api.status import Status, read_status
from posttrain_operator.cluster import Cluster, Json, Ref
from posttrain_operator.errors import Conflict, InvalidSpec, Waiting
from posttrain_operator.events import transition_events
from posttrain_operator.labels import Reason
from posttrain_operator.observe.facts import (
    CHILD_KINDS,
    AttemptFacts,
    Observed,
    Upstream,
    observe_attempts,
    observe_upstream,
    owned_by,
)
from posttrain_operator.observe.surroundings import observe_surroundings
from posttrain_operator.plan.finished import after_finish
from posttrain_operator.plan.metadata import selector
from posttrain_operator.plan.planner import plan
from posttrain_operator.plan.rljob import ServerAddress
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.settings import Settings
from posttrain_operator.status import defect_status, invalid_status, next_status, seen_status

_SOON = timedelta(seconds=1)
_OBSTACLES = (Reason.NAME_TAKEN, Reason.STOPPING, Reason.REFUSED, Reason.KIND_MISSING)
"""Reasons why a child could not be created."""
_TRIES = 3
"""How often a child is created whose name is taken and then is not."""
_MAX_CHAIN = 64
"""Objects of a pipeline that are searched for a cycle."""


@dataclass(frozen=True)
class Outcome:
    """When to look again; None: when something changes."""

    requeue_after: timedelta | None = None


async def reconcile(cluster: Cluster, ref: Ref, settings: Settings, *, now: datetime) -> Outcome:
    """Brings one object a step further. Raises ``ApiUnavailable`` when the cluster cannot be asked."""
    raw = await cluster.get(ref)
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        return Outcome()
    try:
        return await _step(cluster, raw, settings, now=now)
    except Conflict:
        return Outcome(_SOON)


async def _step(cluster: Cluster, raw: Json, settings: Settings, *, now: datetime) -> Outcome:
    before = read_status(raw.get("status"))
    generation = raw["metadata"].get("generation", 1)
    if before.finished:
        await _write(cluster, raw, before, seen_status(before, generation=generation))
        return await _clean_up(cluster, raw, before, now=now)
    try:
        return await _work(_Pass(cluster, parse(raw), raw, before, settings, now))
    except InvalidSpec as invalid:
        await _write(cluster, raw, before, invalid_status(before, str(invalid), generation=generation, now=now))
        return Outcome()


async def tell_defect(cluster: Cluster, ref: Ref, error: Exception, *, now: datetime) -> None:
    """Says in the status that a pass ended with an error that nobody expected; the next pass takes it back."""
    raw = await cluster.get(ref)
    if raw is None:
        return
    before = read_status(raw.get("status"))
    if not before.finished:
        message = f"{type(error).__name__}: {error}; see the operator's log"
        after = defect_status(before, message, generation=raw["metadata"].get("generation", 1), now=now)
        await _write(cluster, raw, before, after)


async def _clean_up(cluster: Cluster, raw: Json, status: Status, *, now: datetime) -> Outcome:
    """Deletes what a finished object no longer needs; whether its spec still parses does not matter."""
    _, _, run = read_spec(raw)
    children, left = after_finish(status, run, await _attempts(cluster, raw), now=now)
    for child in children:
        await _delete(cluster, child)
    return Outcome(left)


@dataclass(frozen=True)
class _Pass:
    """What stays the same during one pass."""

    cluster: Cluster
    resource: Resource
    raw: Json
    """The object as it was read; every write tests that it is still so."""
    before: Status
    settings: Settings
    now: datetime

    def next_status(self, before: Status, decided: Plan, progress: Progress | None) -> Status:
        """The status after a plan."""
        return next_status(before, decided, progress, generation=self.resource.generation, now=self.now)


async def _work(this: _Pass) -> Outcome:
    decided, progress = await _decide(this)
    after = this.next_status(this.before, decided, progress)
    if decided.create:
        decided = await _create_children(this, decided, after)
    else:
        await _write(this.cluster, this.raw, this.before, after)
    for child in decided.repair:
        await this.cluster.repair(child)
    # Last, so that how an attempt ended is on record before its pods, which tell it, are gone.
    for child in decided.delete:
        await _delete(this.cluster, child)
    if after.finished:  # nothing tells of it again, and what is left of it may have its time
        return await _clean_up(this.cluster, this.raw, after, now=this.now)
    return Outcome(decided.requeue_after)


async def _decide(this: _Pass) -> tuple[Plan, Progress | None]:
    """The plan, and what the stage tells. What rests on absence is decided again on fresh observations."""
    resource, address = this.resource, _address(this.cluster, this.resource)
    observed = await _observe(this)
    decided = plan(resource, observed, this.settings, now=this.now, address=address)
    if decided.confirm:
        await this.cluster.refresh(resource.ref.namespace, selector(resource.ref))
        observed = await _observe(this)
        decided = plan(resource, observed, this.settings, now=this.now, address=address)
    return decided, observed.progress


def _address(cluster: Cluster, resource: Resource) -> ServerAddress:
    def address(service: str, pod: str) -> str:
        return cluster.server_address(namespace=resource.ref.namespace, service=service, pod=pod)

    return address


async def _observe(this: _Pass) -> Observed:
    """Reads everything that the plan may know."""
    attempts = await _attempts(this.cluster, this.raw)
    upstreams = await _upstreams(this.cluster, this.resource, this.before)
    progress = await _progress(this.cluster, this.before, attempts)
    children = [child for facts in attempts.values() for child in facts.children]
    around = await observe_surroundings(this.cluster, this.raw, children)
    return Observed(this.before, attempts, upstreams, progress, around)


async def _attempts(cluster: Cluster, raw: Json) -> dict[int, AttemptFacts]:
    """An object's children and pods, by attempt."""
    ref = Ref.of(raw)
    wanted, namespace = selector(ref), ref.namespace
    children = [
        child for version, kind in CHILD_KINDS for child in await cluster.list_objects(version, kind, namespace, wanted)
    ]
    pods = await cluster.list_objects("v1", "Pod", namespace, wanted)
    return observe_attempts(raw["metadata"]["uid"], children, pods)


async def _progress(cluster: Cluster, before: Status, attempts: dict[int, AttemptFacts]) -> Progress | None:
    present = attempts.get(before.attempts[-1].number) if before.attempts else None
    leader = present.leader if present is not None else None
    return await cluster.progress(leader.raw) if leader is not None else None


async def _upstreams(cluster: Cluster, resource: Resource, before: Status) -> dict[str, Upstream]:
    found: dict[str, Upstream] = {}
    for field, item in resource.inputs.items():
        if item.from_ is None or field in before.inputs:
            continue  # the first attempt has settled what is read
        ref = upstream_ref(item.from_, resource.ref.namespace)
        cycle = await _cycle(cluster, resource.ref, ref)
        found[field] = observe_upstream(ref, await cluster.get(ref), cycle=cycle)
    return found


async def _cycle(cluster: Cluster, reader: Ref, start: Ref) -> tuple[str, ...]:
    """The way from ``start`` back to the reader, when there is one."""
    paths: list[tuple[Ref, tuple[str, ...]]] = [(start, (str(reader), str(start)))]
    seen = {start}
    while paths and len(seen) <= _MAX_CHAIN:
        ref, path = paths.pop()
        if ref == reader:
            return path
        raw = await cluster.get(ref)
        for beyond in upstream_refs(raw).values() if raw is not None else ():
            if beyond == reader:
                return (*path, str(beyond))
            if beyond not in seen:
                seen.add(beyond)
                paths.append((beyond, (*path, str(beyond))))
    return ()


async def _create_children(this: _Pass, decided: Plan, after: Status) -> Plan:
    """Records the attempt, then creates its children; returns the plan that was followed.

    The record comes first, and conflicts when the object has changed: so whoever acts on an old view creates nothing.
    While something is in the way, the record is the status as it was, lest it change twice at every try.
    """
    record = this.before if _obstructed(this.before, decided) else after
    raw = await _write(this.cluster, this.raw, this.before, record, always=True)
    for child in decided.create:
        if (obstacle := await _obstacle(this.cluster, this.resource, child)) is not None:
            pause = timedelta(minutes=1) if obstacle.stalled else _SOON
            decided = replace(decided, state=obstacle, create=(), inputs=None, requeue_after=pause)
            after = this.next_status(record, decided, None)
            break
    await _write(this.cluster, raw, record, after)
    return decided


def _obstructed(before: Status, decided: Plan) -> bool:
    """Whether something stood in the way of the same attempt's children at the last pass."""
    ready = before.condition("Ready")
    return ready is not None and ready.reason in _OBSTACLES and before.attempts == decided.attempts


async def _obstacle(cluster: Cluster, resource: Resource, child: Json) -> State | None:
    """Creates a child, or says what is in the way. Raises ``Conflict`` when that goes and comes."""
    ref = Ref.of(child)
    try:
        existing = await _create(cluster, child)
    except InvalidSpec as refused:
        return State("Pending", Reason.REFUSED, f"the cluster refuses {ref}: {refused}", stalled=True)
    except Waiting as waiting:
        return State("Pending", waiting.reason, str(waiting), stalled=waiting.stalled)
    if existing is None or owned_by(existing, resource.uid):
        return None
    if _of_namesake(existing, resource):
        message = f"{ref} of an earlier {resource.ref} is still being deleted"
        return State("Pending", Reason.STOPPING, message)
    message = f"{ref} exists already and belongs to somebody else; delete it or rename this object"
    return State("Pending", Reason.NAME_TAKEN, message, stalled=True)


async def _create(cluster: Cluster, child: Json) -> Json | None:
    """Creates a child, or returns what has its name. Tries again when that has just gone."""
    for _ in range(_TRIES - 1):
        try:
            await cluster.create(child)
        except Conflict:
            if (existing := await cluster.read(Ref.of(child))) is not None:
                return existing
        else:
            return None
    await cluster.create(child)
    return None


def _of_namesake(child: Json, resource: Resource) -> bool:
    """Whether a child belongs to an earlier object with the same name; the garbage collector will come for it."""
    owners = child["metadata"].get("ownerReferences") or []
    names = {(owner.get("apiVersion"), owner.get("kind"), owner.get("name")) for owner in owners}
    return (resource.ref.api_version, resource.ref.kind, resource.ref.name) in names


async def _delete(cluster: Cluster, child: Json) -> None:
    if not child["metadata"].get("deletionTimestamp"):
        await cluster.delete(Ref.of(child), uid=child["metadata"]["uid"])


async def _write(cluster: Cluster, raw: Json, before: Status, after: Status, *, always: bool = False) -> Json:
    """One status write a pass, and none when equal, unless ``always``: then it tests that the object is as seen."""
    said = after.to_json()
    if not always and said == (raw.get("status") or {}):
        return raw
    stored = await cluster.patch_status(raw, said)
    for event in transition_events(before, after, uid=raw["metadata"]["uid"]):
        await cluster.tell(raw, event)
    return stored
