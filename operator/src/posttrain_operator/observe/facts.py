"""Everything that the plan may know of an object's surroundings, gathered in one place."""

from dataclasses import dataclass, field
from datetime import datetime

from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.progress import Progress

from posttrain_operator import labels
from posttrain_operator.api.status import Status, read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import Reason, Role
from posttrain_operator.observe import job, pytorchjob, statefulset
from posttrain_operator.observe.pods import PodFacts, observe_pod
from posttrain_operator.observe.raw import mapping, mappings, text
from posttrain_operator.observe.surroundings import Surroundings
from posttrain_operator.observe.workload import WorkloadState

CHILD_KINDS = (
    (pytorchjob.API_VERSION, pytorchjob.KIND),
    (job.API_VERSION, job.KIND),
    (statefulset.API_VERSION, statefulset.KIND),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
)
"""Kinds that the operator creates; pods are made by their controllers."""

_DIGITS = 10
"""No attempt has a number with so many."""


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
    def stopping(self) -> bool:
        """Whether a workload of it is being deleted."""
        workloads = [child for child in (self.main, self.servers) if child is not None]
        return any(child["metadata"].get("deletionTimestamp") for child in workloads)

    @property
    def workers(self) -> tuple[PodFacts, ...]:
        """The pods of the main child."""
        return tuple(pod for pod in self.pods if pod.role != Role.SERVERS)

    @property
    def gang(self) -> tuple[PodFacts, ...]:
        """The pods that live and die together; none where the main child's pods do not know one another."""
        return self.workers if self.main is not None and self.main["kind"] == pytorchjob.KIND else ()

    @property
    def at_work(self) -> bool:
        """Whether the main child runs, and of a gang every pod.

        A gang whose pods are not seen yet is believed: they are watched apart from their controller.
        """
        if self.state is not WorkloadState.RUNNING:
            return False
        return not self.gang or (self._complete and not any(pod.phase == "Pending" for pod in self.gang))

    def ran_since(self, now: datetime | None = None) -> datetime | None:
        """When the last of the main child's pods was there and had started, by the cluster's clocks.

        Where its pods do not tell when they started, it is ``now``, or None without one. In any case no pod that is
        there now was made later, so one that was made later has replaced one of these.
        """
        started = [pod.started for pod in self.workers if pod.started is not None]
        created = [pod.created for pod in self.workers if pod.created is not None]
        if started and (not self.gang or (self._complete and len(started) == len(self.gang))):
            return max(started + created)
        return None if now is None else max([now, *created])

    @property
    def _complete(self) -> bool:
        return self.main is not None and len(self.gang) >= pytorchjob.size(self.main)

    @property
    def servers_ready(self) -> bool:
        """Whether all rollout servers answer."""
        return self.servers is not None and statefulset.ready(self.servers)

    @property
    def gpus(self) -> int:
        """GPUs that all its pods hold together, rollout servers included."""
        return sum(pod.gpus for pod in self.pods)

    @property
    def leader(self) -> PodFacts | None:
        """The pod whose progress is the attempt's: the first of the main child's, while it runs."""
        return min((pod for pod in self.workers if pod.running), key=lambda pod: pod.name, default=None)


@dataclass(frozen=True)
class Observed:
    """What the plan decides on."""

    status: Status
    attempts: dict[int, AttemptFacts]
    upstreams: dict[str, Upstream]
    """By the field's path."""
    progress: Progress | None = None
    surroundings: Surroundings = field(default_factory=Surroundings)
    """Queues, quotas, and who else wants of them."""

    @property
    def pods_alive(self) -> bool:
        """Whether any pod of any attempt has not ended, also one whose parents are deleted already."""
        return any(pod.alive for facts in self.attempts.values() for pod in (*facts.pods, *facts.strays))

    def others_alive(self, number: int) -> bool:
        """Whether a pod has not ended that belongs to no workload of the attempt with this number."""
        return any(
            pod.alive
            for facts in self.attempts.values()
            for pod in (facts.strays if facts.number == number else (*facts.pods, *facts.strays))
        )


def observe_attempts(uid: str, children: list[Json], pods: list[Json]) -> dict[int, AttemptFacts]:
    """The children of an object by attempt; those of an earlier object with the same name are not ours."""
    own = [child for child in children if owned_by(child, uid)]
    numbers = {number for obj in (*own, *pods) if (number := _attempt(obj))}
    return {number: _attempt_facts(number, own, pods) for number in sorted(numbers)}


def owned_by(child: Json, uid: str) -> bool:
    """Whether the object with this uid is the controller of a child."""
    return bool(uid) and _controller(child) == uid


def observe_upstream(ref: Ref, raw: Json | None, *, cycle: tuple[str, ...] = ()) -> Upstream:
    """What an object that is read from can give."""
    if raw is None:
        return Upstream(ref, exists=False, cycle=cycle)
    status = read_status(raw.get("status"))
    ready = status.condition("Ready")
    over = status.holds("Failed") or (ready is not None and ready.reason == Reason.INVALID_SPEC)
    return Upstream(
        ref=ref,
        exists=True,
        artifact=status.artifact if status.holds("Ready") else None,
        uid=raw["metadata"]["uid"],
        phase=status.phase or "Pending",
        failure=ready.message if ready is not None and over else None,
        cycle=cycle,
    )


def _attempt_facts(number: int, own: list[Json], pods: list[Json]) -> AttemptFacts:
    children = tuple(child for child in own if _attempt(child) == number)
    by_kind = {child["kind"]: child for child in children}
    uids = {child["metadata"]["uid"] for child in children}
    sides: tuple[list[PodFacts], list[PodFacts]] = ([], [])
    for pod in pods:
        if _attempt(pod) == number:
            sides[_controller(pod) not in uids].append(observe_pod(pod))
    return AttemptFacts(
        number=number,
        main=by_kind.get(pytorchjob.KIND) or by_kind.get(job.KIND),
        servers=by_kind.get(statefulset.KIND),
        children=children,
        pods=tuple(sides[0]),
        strays=tuple(sides[1]),
    )


def _controller(obj: Json) -> str:
    """The uid of what made an object, or nothing."""
    owners = mappings(obj["metadata"].get("ownerReferences"))
    return next((text(owner.get("uid")) for owner in owners if owner.get("controller")), "")


def _attempt(obj: Json) -> int:
    number = text(mapping(obj["metadata"].get("labels")).get(labels.ATTEMPT))
    return int(number) if number.isdecimal() and len(number) < _DIGITS else 0
