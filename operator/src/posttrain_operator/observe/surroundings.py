"""What else wants quota, and what there is of it. Nothing of this is asked of the API server: events keep it known."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Cluster, Json
from posttrain_operator.observe import kueue, quota
from posttrain_operator.observe.contenders import Contender, observe_contender
from posttrain_operator.observe.quota import Quota, observe_quota
from posttrain_operator.observe.raw import mapping, text

PAIRS: Final = ("RLJob",)
"""Kinds with two children, each of which is admitted for itself."""
_DIGITS: Final = 10
"""No attempt has a number with so many."""
PodsOf = tuple[str, str, int]
"""(kind, name, attempt) of the object that pods belong to."""


@dataclass(frozen=True)
class Surroundings:
    """Around one object: the Workloads of its namespace, its quotas, and those who want the same."""

    me: Contender | None = None
    """The object itself, as the others see it; None where nobody shares anything with it."""
    workloads: tuple[Json, ...] = ()
    """Kueue's Workloads of the namespace."""
    contenders: tuple[Contender, ...] = ()
    """Other objects that draw on the same quota: with a queue those that need two admissions."""
    quotas: tuple[Quota, ...] = ()
    """ResourceQuotas of the namespace, where no queue admits."""
    pods: Mapping[PodsOf, int] = field(default_factory=dict)
    """Pods of the namespace that were made, ended ones too."""


async def observe_surroundings(cluster: Cluster, raw: Json, children: list[Json]) -> Surroundings:
    """Reads what is around an object, as far as its plan depends on it: the others matter before an attempt begins."""
    me = observe_contender(raw)
    if me.queue is None and not any(kueue.queue_of(child) or kueue.is_suspended(child) for child in children):
        return await _quotas(cluster, me) if me.attempt is None else Surroundings()
    workloads = tuple(await cluster.list_objects(kueue.API_VERSION, kueue.WORKLOAD, me.namespace, {}))
    if me.queue is None or me.kind not in PAIRS or me.attempt is not None:
        return Surroundings(workloads=workloads)
    return Surroundings(me, workloads, await _line(cluster, me, me.queue))


async def _line(cluster: Cluster, me: Contender, queue: str) -> tuple[Contender, ...]:
    """The others that need two admissions from the same ClusterQueue, in whatever namespace."""
    targets = kueue.cluster_queues(await cluster.list_objects(kueue.API_VERSION, kueue.LOCAL_QUEUE, "", {}))

    def target(namespace: str, name: str) -> str:
        return targets.get((namespace, name), f"{namespace}/{name}")

    mine = target(me.namespace, queue)
    others = [other for kind in PAIRS for other in await cluster.list_objects(labels.API_VERSION, kind, "", {})]
    return tuple(
        other
        for other in _unfinished(others, me)
        if other.queue is not None and target(other.namespace, other.queue) == mine
    )


async def _quotas(cluster: Cluster, me: Contender) -> Surroundings:
    """The quotas of the namespace, and the others there that no queue admits."""
    found = await cluster.list_objects(quota.API_VERSION, quota.KIND, me.namespace, {})
    quotas = tuple(quota for quota in map(observe_quota, found) if quota is not None)
    if not quotas:
        return Surroundings()
    others = [o for kind in KINDS for o in await cluster.list_objects(labels.API_VERSION, kind, me.namespace, {})]
    own = {"app.kubernetes.io/managed-by": labels.MANAGER}
    pods = await cluster.list_objects("v1", "Pod", me.namespace, own)
    return Surroundings(
        me=me,
        contenders=tuple(other for other in _unfinished(others, me) if other.queue is None),
        quotas=quotas,
        pods=Counter(key for pod in pods if (key := _pods_of(pod)) is not None),
    )


def _unfinished(others: Iterable[Json], me: Contender) -> Iterator[Contender]:
    """The others that have not ended; there may be thousands that have."""
    for raw in others:
        if raw["metadata"]["uid"] != me.uid and not mapping(raw.get("status")).get("completionTime"):
            yield observe_contender(raw)


def _pods_of(pod: Json) -> PodsOf | None:
    own = mapping(pod["metadata"].get("labels"))
    kind, name, attempt = (text(own.get(key)) for key in (labels.KIND, labels.NAME, labels.ATTEMPT))
    return (kind, name, int(attempt)) if attempt.isdecimal() and len(attempt) < _DIGITS else None
