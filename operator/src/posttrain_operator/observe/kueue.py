"""Kueue (kueue.x-k8s.io): the only module that knows the vocabulary of Workloads and LocalQueues.

v1beta2 is the version that Kueue 0.19 stores.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.quantities import moment
from posttrain_operator.cluster import Json
from posttrain_operator.observe import pytorchjob
from posttrain_operator.observe.raw import integer, mapping, mappings, text

API_VERSION: Final = "kueue.x-k8s.io/v1beta2"
WORKLOAD: Final = "Workload"
LOCAL_QUEUE: Final = "LocalQueue"
JOB_UID: Final = "kueue.x-k8s.io/job-uid"
"""Label of a Workload: the uid of the child that it admits."""
PREEMPTED: Final = "Preempted"
"""Why a Workload was evicted: another one needs its quota."""
RETRIED_BY_KUEUE: Final = ("PodsReadyTimeout", "Deactivated")
"""Evictions that the pods themselves brought about; Kueue counts and paces the tries of such a Workload."""

NEVER: Final = datetime.min.replace(tzinfo=UTC)
"""Before everything; stands where a time is missing."""

_PREEMPTOR: Final = re.compile(r"\(UID: (?P<uid>[^,)]+)(?:, JobUID: (?P<job>[^)]+))?\) due to (?P<why>[^;]+)")
_NEVER_FITS: Final = ("ExceedsMaxQuota", "NoMatchingFlavor")
_MAXIMUM: Final = "> maximum capacity"
_UNUSED: Final = "insufficient unused quota"


@dataclass(frozen=True)
class Told:
    """A condition, in Kueue's words."""

    reason: str
    message: str
    since: datetime


@dataclass(frozen=True)
class WorkloadFacts:
    """One Workload: the request of one child for quota."""

    uid: str
    queue: str
    priority: int
    created: datetime
    active: bool
    """Whether it may be admitted at all; a person, or a limit of Kueue's, can say no."""
    admitted: bool
    """Whether its pods may run: it is admitted, and nobody is taking that back."""
    reserved: Told | None
    """Since when quota is kept for it."""
    waits: Told | None
    """Why no quota is kept for it."""
    checks: Told | None
    """Why it is not admitted although quota is kept for it."""
    evicted: Told | None
    """Why its admission was taken back, until quota is kept for it again."""
    preempted: Told | None
    """By whom, where that was the reason."""
    finished: bool

    @property
    def never_fits(self) -> bool:
        """Whether it asks for more than its queue can ever give."""
        told = self.waits
        if told is None:
            return False
        # Without Kueue's feature gate UnadmittedWorkloadsObservability every reason is Pending.
        return told.reason in _NEVER_FITS or (_MAXIMUM in told.message and _UNUSED not in told.message)


def observe_workload(raw: Json) -> WorkloadFacts:
    """The facts of a Workload."""
    metadata, spec = raw["metadata"], mapping(raw.get("spec"))
    told = _conditions(raw)
    evicted = _holding(told, "Evicted")
    reserved = _holding(told, "QuotaReserved")
    admitted = _holding(told, "Admitted") is not None
    return WorkloadFacts(
        uid=metadata["uid"],
        queue=text(spec.get("queueName")),
        priority=integer(spec.get("priority")) or 0,
        created=moment(metadata.get("creationTimestamp")) or NEVER,
        active=spec.get("active") is not False,
        admitted=admitted and evicted is None,
        reserved=reserved,
        waits=_lacking(told, "QuotaReserved"),
        checks=_lacking(told, "Admitted") if reserved is not None else None,
        evicted=evicted,
        preempted=_holding(told, "Preempted"),
        finished=_holding(told, "Finished") is not None,
    )


def workload_of(child: Json, workloads: Iterable[Json]) -> WorkloadFacts | None:
    """The facts of a child's Workload; of several, the one that is not finished, and the newest."""
    uid = child["metadata"]["uid"]
    own = [observe_workload(raw) for raw in workloads if any(owner == uid for owner, _ in _owners(raw["metadata"]))]
    return max(own, key=lambda workload: (not workload.finished, workload.created), default=None)


def ahead(mine: WorkloadFacts, workloads: Iterable[Json]) -> int:
    """How many Workloads of the same LocalQueue are asked before this one: higher priority first, then older."""
    same = (raw for raw in workloads if mapping(raw.get("spec")).get("queueName") == mine.queue)
    waiting = (w for w in map(observe_workload, same) if not w.finished and w.reserved is None and w.active)
    return sum(1 for workload in waiting if _place(workload) < _place(mine))


def preemptor(told: Told, workloads: Iterable[Json]) -> str:
    """Who took the quota and why, as far as it may be told: what is in other namespaces has no name here."""
    match = _PREEMPTOR.search(told.message)
    if match is None:
        return told.message
    named = {match["uid"], match["job"]}
    for raw in workloads:
        for uid, name in _owners(raw["metadata"]):
            if name and named & {raw["metadata"]["uid"], uid}:
                return f"for {name} due to {match['why'].strip()}"
    return f"for a workload of another namespace due to {match['why'].strip()}"


def cluster_queues(local_queues: Iterable[Json]) -> dict[tuple[str, str], str]:
    """The ClusterQueue that each LocalQueue draws on, by the LocalQueue's namespace and name."""
    named = ((raw["metadata"], text(mapping(raw.get("spec")).get("clusterQueue"))) for raw in local_queues)
    return {(metadata["namespace"], metadata["name"]): target for metadata, target in named if target}


def queue_of(child: Json) -> str | None:
    """The LocalQueue that a child carries; Kueue may have set one where we did not."""
    return text(mapping(child["metadata"].get("labels")).get(labels.QUEUE)) or None


def is_suspended(child: Json) -> bool:
    """Whether a child is held back by its own field; a StatefulSet has none."""
    spec = mapping(child.get("spec"))
    policy = mapping(spec.get("runPolicy")) if child["kind"] == pytorchjob.KIND else spec
    return bool(policy.get("suspend"))


def is_gated(pod: Json) -> bool:
    """Whether a pod is there but held back, so that it uses nothing."""
    conditions = mappings(mapping(pod.get("status")).get("conditions"))
    return any((c.get("type"), c.get("reason")) == ("PodScheduled", "SchedulingGated") for c in conditions)


def _place(workload: WorkloadFacts) -> tuple[int, datetime, str]:
    return -workload.priority, workload.created, workload.uid


def _owners(metadata: Json) -> list[tuple[str, str]]:
    """(uid, KIND/NAME) of what a Workload admits; of a StatefulSet's the reference is no controller's."""
    references = mappings(metadata.get("ownerReferences"))
    owners = [(text(owner.get("uid")), f"{owner.get('kind')}/{owner.get('name')}") for owner in references]
    job = text(mapping(metadata.get("labels")).get(JOB_UID))
    if job and all(uid != job for uid, _ in owners):
        owners.append((job, ""))
    return owners


def _conditions(raw: Json) -> dict[str, tuple[str, Told]]:
    """The status of each condition, and what it says."""
    return {
        text(c.get("type")): (
            text(c.get("status")),
            Told(text(c.get("reason")), text(c.get("message")), moment(c.get("lastTransitionTime")) or NEVER),
        )
        for c in mappings(mapping(raw.get("status")).get("conditions"))
    }


def _holding(told: dict[str, tuple[str, Told]], kind: str) -> Told | None:
    status, said = told.get(kind, ("", None))
    return said if status == "True" else None


def _lacking(told: dict[str, tuple[str, Told]], kind: str) -> Told | None:
    status, said = told.get(kind, ("", None))
    return said if status == "False" else None
