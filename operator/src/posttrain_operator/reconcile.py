"""The loop: parse -> observe -> plan -> apply -> status. The same for every kind, and callable at any time.

A process that knows nothing converges: everything it needs is read from the cluster, and what it writes is written
again only when it differs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from posttrain_contract.progress import Progress

from posttrain_operator.api.resources import Resource, parse, upstream_refs
from posttrain_operator.api.status import Status, read_status
from posttrain_operator.cluster import Cluster, Json, Ref
from posttrain_operator.errors import Conflict, InvalidSpec
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
from posttrain_operator.plan.metadata import selector
from posttrain_operator.plan.planner import lingering, plan
from posttrain_operator.plan.rljob import ServerAddress
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.settings import Settings
from posttrain_operator.status import invalid_status, next_status, seen_status

_SOON = timedelta(seconds=1)
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
    before = read_status(raw.get("status"))
    generation = raw["metadata"].get("generation", 1)
    try:
        if before.finished:
            await _write(cluster, raw, before, seen_status(before, generation=generation))
            await _clean_up(cluster, raw)
            return Outcome()
        return await _work(cluster, parse(raw), raw, before, settings, now=now)
    except InvalidSpec as invalid:
        await _write(cluster, raw, before, invalid_status(before, str(invalid), generation=generation, now=now))
        return Outcome()
    except Conflict:
        return Outcome(_SOON)


async def _clean_up(cluster: Cluster, raw: Json) -> None:
    """Deletes what a finished object no longer needs; whether its spec still parses does not matter."""
    attempts = await _attempts(cluster, raw)
    for child in lingering(attempts):
        await _delete(cluster, child)


async def _work(
    cluster: Cluster, resource: Resource, raw: Json, before: Status, settings: Settings, *, now: datetime
) -> Outcome:
    observed = await _observe(cluster, resource, raw, before)
    decided = plan(resource, observed, settings, now=now, address=_address(cluster, resource))
    decided = await _create_children(cluster, resource, before, decided)
    status = next_status(before, decided, observed.progress, generation=resource.generation, now=now)
    await _write(cluster, raw, before, status)
    # Last, so that how an attempt ended is on record before its pods, which tell it, are gone.
    for child in decided.delete:
        await _delete(cluster, child)
    return Outcome(decided.requeue_after)


def _address(cluster: Cluster, resource: Resource) -> ServerAddress:
    def address(service: str, pod: str) -> str:
        return cluster.server_address(namespace=resource.ref.namespace, service=service, pod=pod)

    return address


async def _observe(cluster: Cluster, resource: Resource, raw: Json, before: Status) -> Observed:
    """Reads everything that the plan may know."""
    attempts = await _attempts(cluster, raw)
    upstreams = await _upstreams(cluster, resource, raw, before)
    return Observed(before, attempts, upstreams, await _progress(cluster, before, attempts))


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


async def _upstreams(cluster: Cluster, resource: Resource, raw: Json, before: Status) -> dict[str, Upstream]:
    found: dict[str, Upstream] = {}
    for field, ref in upstream_refs(raw).items():
        if field in before.inputs:
            continue  # the first attempt has settled what is read
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


async def _create_children(cluster: Cluster, resource: Resource, before: Status, decided: Plan) -> Plan:
    """Creates children; a name that is taken becomes the plan's state, and the attempt has not begun."""
    for child in decided.create:
        if (obstacle := await _obstacle(cluster, resource, child)) is not None:
            pause = timedelta(minutes=1) if obstacle.stalled else _SOON
            return Plan(obstacle, delete=decided.delete, attempts=before.attempts, requeue_after=pause)
    return decided


async def _obstacle(cluster: Cluster, resource: Resource, child: Json) -> State | None:
    """Creates a child, or says what holds its name. Raises ``Conflict`` when that has just gone."""
    try:
        await cluster.create(child)
    except Conflict:
        ref = Ref.of(child)
        existing = await cluster.get(ref)
        if existing is None:
            raise
        if owned_by(existing, resource.uid):
            return None
        if _of_namesake(existing, resource):
            message = f"{ref} of an earlier {resource.ref} is still being deleted"
            return State("Pending", Reason.STOPPING, message)
        message = f"{ref} exists already and belongs to somebody else; delete it or rename this object"
        return State("Pending", Reason.NAME_TAKEN, message, stalled=True)
    return None


def _of_namesake(child: Json, resource: Resource) -> bool:
    """Whether a child belongs to an earlier object with the same name; the garbage collector will come for it."""
    owners = child["metadata"].get("ownerReferences") or []
    names = {(owner.get("apiVersion"), owner.get("kind"), owner.get("name")) for owner in owners}
    return (resource.ref.api_version, resource.ref.kind, resource.ref.name) in names


async def _delete(cluster: Cluster, child: Json) -> None:
    if not child["metadata"].get("deletionTimestamp"):
        await cluster.delete(Ref.of(child), uid=child["metadata"]["uid"])


async def _write(cluster: Cluster, raw: Json, before: Status, after: Status) -> None:
    """One status write a pass, and none when equal."""
    if after.to_json() != before.to_json():
        await cluster.patch_status(raw, after.to_json())
