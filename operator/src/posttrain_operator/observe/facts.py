"""Everything that the plan may know of an object's surroundings, gathered in one place."""

from dataclasses import dataclass

from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.progress import Progress

from posttrain_operator import labels
from posttrain_operator.api.status import Status, read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import Role
from posttrain_operator.observe import job, pytorchjob, statefulset
from posttrain_operator.observe.pods import PodFacts, observe_pod
from posttrain_operator.observe.workload import WorkloadState

CHILD_KINDS = (
    (pytorchjob.API_VERSION, pytorchjob.KIND),
    (job.API_VERSION, job.KIND),
    (statefulset.API_VERSION, statefulset.KIND),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
)
"""Kinds that the operator creates; pods are made by their controllers."""


@dataclass(frozen=True)
class Upstream:
    """An object that this one reads from."""

    ref: Ref
    exists: bool
    artifact: ArtifactSummary | None = None
    """Its artifact, once it is Ready."""
    uid: str = ""
    phase: str = ""
    failure: str | None = None
    """Why it will not become Ready by itself."""
    cycle: tuple[str, ...] = ()
    """The way from it back to the reader, when there is one."""


@dataclass(frozen=True)
class AttemptFacts:
    """The children of one attempt."""

    number: int
    main: Json | None
    """The Job or PyTorchJob whose end is the attempt's end."""
    servers: Json | None
    """The StatefulSet of rollout servers."""
    children: tuple[Json, ...]
    """All of them, with Services and ConfigMaps."""
    pods: tuple[PodFacts, ...]
    """Pods of its workloads."""
    strays: tuple[PodFacts, ...] = ()
    """Pods whose workload is deleted already, also those of an earlier object with the same name."""

    @property
    def state(self) -> WorkloadState | None:
        """The state of the main child, or None while it does not exist."""
        if self.main is None:
            return None
        if self.main["kind"] == pytorchjob.KIND:
            return pytorchjob.observe(self.main)
        return job.observe(self.main)

    @property
    def exists(self) -> bool:
        """Whether any workload of the attempt is there."""
        return self.main is not None or self.servers is not None

    @property
    def servers_ready(self) -> bool:
        """Whether all rollout servers answer."""
        return self.servers is not None and statefulset.ready(self.servers)

    @property
    def leader(self) -> PodFacts | None:
        """The pod whose progress is the attempt's: the first of the main child's, while it runs."""
        running = [pod for pod in self.pods if pod.running and pod.role != Role.SERVERS]
        return min(running, key=lambda pod: pod.name, default=None)


@dataclass(frozen=True)
class Observed:
    """What the plan decides on."""

    status: Status
    attempts: dict[int, AttemptFacts]
    upstreams: dict[str, Upstream]
    """By the field's path."""
    progress: Progress | None = None

    @property
    def pods_alive(self) -> bool:
        """Whether any pod of any attempt has not ended, also one whose parents are deleted already."""
        return any(pod.alive for facts in self.attempts.values() for pod in (*facts.pods, *facts.strays))


def observe_attempts(uid: str, children: list[Json], pods: list[Json]) -> dict[int, AttemptFacts]:
    """The children of an object by attempt; those of an earlier object with the same name are not ours."""
    own = [child for child in children if owned_by(child, uid)]
    numbers = {number for obj in (*own, *pods) if (number := _attempt(obj))}
    return {number: _attempt_facts(number, own, pods) for number in sorted(numbers)}


def owned_by(child: Json, uid: str) -> bool:
    """Whether the object with this uid is the controller of a child."""
    owners = child["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == uid and owner.get("controller") for owner in owners)


def observe_upstream(ref: Ref, raw: Json | None, *, cycle: tuple[str, ...] = ()) -> Upstream:
    """What an object that is read from can give."""
    if raw is None:
        return Upstream(ref, exists=False, cycle=cycle)
    status = read_status(raw.get("status"))
    stalled = status.condition("Stalled")
    return Upstream(
        ref=ref,
        exists=True,
        artifact=status.artifact if status.holds("Ready") else None,
        uid=raw["metadata"]["uid"],
        phase=status.phase or "Pending",
        failure=stalled.message if stalled is not None and stalled.status == "True" else None,
        cycle=cycle,
    )


def _attempt_facts(number: int, own: list[Json], pods: list[Json]) -> AttemptFacts:
    children = tuple(child for child in own if _attempt(child) == number)
    by_kind = {child["kind"]: child for child in children}
    labelled = [pod for pod in pods if _attempt(pod) == number]
    strays = [pod for pod in labelled if not any(owned_by(pod, child["metadata"]["uid"]) for child in children)]
    return AttemptFacts(
        number=number,
        main=by_kind.get(pytorchjob.KIND) or by_kind.get(job.KIND),
        servers=by_kind.get(statefulset.KIND),
        children=children,
        pods=tuple(observe_pod(pod) for pod in labelled if pod not in strays),
        strays=tuple(observe_pod(pod) for pod in strays),
    )


def _attempt(obj: Json) -> int:
    text = (obj["metadata"].get("labels") or {}).get(labels.ATTEMPT, "")
    return int(text) if text.isdecimal() else 0
