"""Many RLJobs, one queue of Kueue's, an operator that dies now and then, and a clock that jumps from event to event.

The operator is the real one: its ``reconcile`` over a cluster in memory. Kueue, controllers and kubelet are played.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from posttrain_contract.exit_codes import ExitCode
from posttrain_operator import labels
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe import kueue
from posttrain_operator.reconcile import reconcile
from posttrain_operator.settings import Settings
from support.memory_cluster import CrashError, MemoryCluster, conditions, owner_reference, pod_templates
from support.scene import SPECS, SUCCESS, failure, finish

NAMESPACES = ("team-a", "team-b")
CLUSTER_QUEUE = "gpus"
Family = tuple[str, str, str]


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class ThinCluster(MemoryCluster):
    """A cluster in memory that copies nothing it gives out, and finds an object's children at once.

    Other RLJobs are seen as they were when the passes of the present moment began: so do passes that run at once.
    """

    def __init__(self, now: Callable[[], datetime], changed: Callable[[Json], None]) -> None:
        super().__init__()
        self._now = now
        self._changed = changed
        self._families: dict[Family, dict[Ref, None]] = {}
        self._kinds: dict[str, dict[Ref, None]] = {}
        self.seen: list[Json] = []

    def snapshot(self) -> None:
        self.seen = [self.objects[ref] for ref in self._kinds.get("RLJob", ())]

    async def get(self, ref: Ref) -> Json | None:
        return self.objects.get(ref)

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        if kind == "RLJob":
            return self.seen
        family = (namespace, wanted.get(labels.KIND, ""), wanted.get(labels.NAME, ""))
        refs = self._families.get(family, {}) if all(family) else self._kinds.get(kind, {})
        return [self.objects[ref] for ref in refs if ref.kind == kind and namespace in ("", ref.namespace)]

    def remove(self, ref: Ref) -> None:
        obj = self.objects[ref]
        pods = [pod for pod in self.owned_by(obj) if pod.kind == "Pod"]
        super().remove(ref)
        for pod in pods:
            if pod in self.objects:
                self._changed(self.objects[pod])
        self._kinds[ref.kind].pop(ref, None)
        self._families.get(_family(obj), {}).pop(ref, None)
        self._changed(obj)

    def end_pod(self, ref: Ref, code: int, *arguments: Any, **named: Any) -> None:
        pod = self.objects[ref]
        if "deletionTimestamp" in pod["metadata"]:
            self._kinds["Pod"].pop(ref, None)
            self._families.get(_family(pod), {}).pop(ref, None)
        super().end_pod(ref, code, *arguments, **named)
        self._changed(pod)

    def _store(self, obj: Json) -> None:
        metadata = {"creationTimestamp": iso(self._now()), **obj["metadata"]}
        metadata["resourceVersion"] = str(next(self._versions))
        metadata.setdefault("uid", f"uid-{metadata['resourceVersion']}")
        metadata.setdefault("generation", 1)
        obj = {**obj, "metadata": metadata}
        ref = Ref.of(obj)
        self.objects[ref] = obj
        self._kinds.setdefault(ref.kind, {})[ref] = None
        self._families.setdefault(_family(obj), {})[ref] = None
        self._changed(obj)


@dataclass
class Queue:
    """What Kueue is told to do."""

    capacity: int = 6
    strict: bool = True
    """Whether nobody overtakes the first that does not fit; else everything that fits is admitted, in any order."""


@dataclass
class Misfortune:
    """What happens beside the work."""

    failures: float = 0.1
    """Share of trainers that fail."""
    preemptions: float = 0.1
    """Share of admissions that Kueue takes back."""
    crashes: float = 0.01
    """Share of passes in which the operator's process ends."""
    strangers: int = 8
    """Workloads of other kinds that want quota too, once, and for longer than an attempt waits for its other half."""


@dataclass
class Record:
    """What happened to one job."""

    arrived: datetime
    admitted: datetime | None = None
    """When its trainer was first admitted, and so all of it."""
    finished: datetime | None = None
    set_back: bool = False
    """Whether it failed, was preempted or let go, and so had to stand in the line again."""


@dataclass
class Simulation:
    """One run. Everything that is random comes from one seed."""

    seed: int
    jobs: int = 50
    arrivals: float = 300
    """Seconds in which the jobs come."""
    queue: Queue = field(default_factory=Queue)
    misfortune: Misfortune = field(default_factory=Misfortune)
    settings: Settings = field(default_factory=lambda: Settings(queue_hold=timedelta(minutes=1)))
    passes: int = 0
    records: dict[Ref, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.cluster = ThinCluster(lambda: self.now, self._changed)
        self._events: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._due: dict[Ref, datetime] = {}
        self._scheduling = False
        for namespace in NAMESPACES:
            queue = {"apiVersion": kueue.API_VERSION, "kind": "LocalQueue", "spec": {"clusterQueue": CLUSTER_QUEUE}}
            self.cluster.apply({**queue, "metadata": {"name": "training", "namespace": namespace}})
        for number in range(self.jobs):
            self._after(self.random.uniform(0, self.arrivals), partial(self._arrive, number))
        burst = self.random.uniform(0, 300)
        for number in range(self.misfortune.strangers):
            self._after(burst + self.random.uniform(0, 60), partial(self._ask_for_stranger, number))

    def run(self, limit: timedelta) -> bool:
        """Lets time pass until every job has finished; False when they have not by then."""
        end = self.now + limit
        while any(record.finished is None for record in self.records.values()) or len(self.records) < self.jobs:
            moment = min([at for at, *_ in self._events[:1]] + list(self._due.values()), default=end)
            if moment >= end:
                return False
            self.now = max(self.now, moment)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._look()
        return True

    # What happened.

    def unfinished(self) -> list[str]:
        """The jobs that have not finished, and why."""
        status = {ref: self.cluster.objects[ref].get("status", {}) for ref in self.records}
        return [f"{ref.name}: {status[ref]}" for ref, record in self.records.items() if record.finished is None]

    def overtaken(self) -> list[str]:
        """The jobs that nothing set back, and that were admitted after one that came later."""
        return [
            ref.name
            for ref, record in self.records.items()
            if not record.set_back
            and any(
                other.admitted is not None
                and (record.admitted is None or other.admitted < record.admitted)
                and other.arrived - record.arrived > timedelta(seconds=1)
                for other in self.records.values()
            )
        ]

    def holders(self) -> list[str]:
        """The kinds of what holds quota."""
        held = [workload for workload in self._workloads() if _holds(workload, "QuotaReserved")]
        return [child["kind"] for child in map(self._child, held) if child is not None]

    # The operator.

    def _look(self) -> None:
        due = [ref for ref, at in self._due.items() if at <= self.now]
        self.cluster.snapshot()
        self.random.shuffle(due)
        for ref in due:
            del self._due[ref]
            try:
                self._pass(ref)
            except CrashError:
                self.cluster.before_write = self.cluster.after_write = lambda _: None
                for known in self.records:
                    self._wake(known, self.random.uniform(0, 20))
                return

    def _pass(self, ref: Ref) -> None:
        self.passes += 1
        if self.random.random() < self.misfortune.crashes:
            self._crash_at(self.cluster.tries + self.random.randrange(3))
        outcome = finish(reconcile(self.cluster, ref, self.settings, now=self.now))
        self.cluster.before_write = self.cluster.after_write = lambda _: None
        if outcome.requeue_after is not None:
            self._wake(ref, max(outcome.requeue_after.total_seconds(), 0.01))

    def _crash_at(self, number: int) -> None:
        def crash(write: int) -> None:
            if write == number:
                raise CrashError

        if self.random.random() < 0.5:
            self.cluster.before_write = crash
        else:
            self.cluster.after_write = crash

    def _changed(self, obj: Json) -> None:
        """What a watch brings."""
        kind, metadata = obj["kind"], obj["metadata"]
        if kind == "RLJob":
            ref = Ref.of(obj)
            self._wake(ref, self.random.uniform(0, 0.2))
            self._note(ref, obj)
        elif labels.NAME in metadata.get("labels", {}):
            self._wake(_owner(obj), self.random.uniform(0, 0.2))
            if kind in ("StatefulSet", "PyTorchJob"):
                self._schedule()
            elif kind == "Pod" and "deletionTimestamp" in metadata:
                self._after(self.random.uniform(1, 10), lambda: self._stop(Ref.of(obj), metadata["uid"]))
        elif kind == "Workload":
            child = self._child(obj)
            if child is not None:
                self._changed({**child, "kind": "Child"})
            self._schedule()

    def _wake(self, ref: Ref, seconds: float) -> None:
        at = self.now + timedelta(seconds=seconds)
        self._due[ref] = min(at, self._due.get(ref, at))

    def _note(self, ref: Ref, obj: Json) -> None:
        status, record = obj.get("status", {}), self.records[ref]
        holding = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
        record.set_back |= any(
            attempt.get("outcome") not in (None, "Succeeded") for attempt in status.get("attempts", [])
        )
        if "Succeeded" in holding:
            record.finished = record.finished or self.now
        assert "Failed" not in holding, status

    # The user.

    def _arrive(self, number: int) -> None:
        namespace = self.random.choice(NAMESPACES)
        metadata: Json = {"name": f"job-{number}", "namespace": namespace}
        ref = Ref(labels.API_VERSION, "RLJob", namespace, metadata["name"])
        self.records[ref] = Record(self.now)
        spec = {**SPECS["RLJob"], "rollout": {"replicas": 1}, "run": {"queue": "training", "retries": 100}}
        self.cluster.apply({"apiVersion": labels.API_VERSION, "kind": "RLJob", "metadata": metadata, "spec": spec})

    # Kueue.

    def _schedule(self) -> None:
        if not self._scheduling:
            self._scheduling = True
            self._after(self.random.uniform(0.1, 2), self._admit)

    def _admit(self) -> None:
        self._scheduling = False
        for kind in ("StatefulSet", "PyTorchJob"):
            for ref in self.cluster.of_kind(kind):
                self._ask(self.cluster.objects[ref])
        waiting = [obj for obj in self._workloads() if not _holds(obj, "QuotaReserved")]
        free = self.queue.capacity - (len(self._workloads()) - len(waiting))
        waiting.sort(key=lambda obj: (obj["metadata"]["creationTimestamp"], int(obj["metadata"]["resourceVersion"])))
        if not self.queue.strict:
            self.random.shuffle(waiting)
        for workload in waiting[: max(0, free)]:
            self._let_in(Ref.of(workload))

    def _ask(self, child: Json) -> None:
        """Makes a Workload for a child that has a queue."""
        name, namespace = f"w-{child['metadata']['uid']}", child["metadata"]["namespace"]
        if _over(child) or Ref(kueue.API_VERSION, "Workload", namespace, name) in self.cluster.objects:
            return
        owner = {**owner_reference(child), "controller": child["kind"] != "StatefulSet"}
        metadata = {"name": name, "namespace": namespace, "ownerReferences": [owner]}
        metadata["labels"] = {kueue.JOB_UID: child["metadata"]["uid"]}
        spec = {"queueName": child["metadata"]["labels"][labels.QUEUE]}
        self.cluster.apply({"apiVersion": kueue.API_VERSION, "kind": "Workload", "metadata": metadata, "spec": spec})

    def _ask_for_stranger(self, number: int) -> None:
        metadata: Json = {"name": f"stranger-{number}", "namespace": NAMESPACES[0]}
        spec = {"queueName": "training"}
        self.cluster.apply({"apiVersion": kueue.API_VERSION, "kind": "Workload", "metadata": metadata, "spec": spec})

    def _let_in(self, ref: Ref) -> None:
        """Admits a Workload; its child's pods come."""
        self._tell(ref, QuotaReserved="True", Admitted="True", Evicted="False", Preempted="False")
        child = self._child(self.cluster.objects[ref])
        if child is None:
            self._after(self.random.uniform(60, 240), lambda: self.cluster.remove(ref))
            return
        if child["kind"] == "PyTorchJob":
            record = self.records[_owner(child)]
            record.admitted = record.admitted or self.now
            child["spec"]["runPolicy"]["suspend"] = False
            self.cluster.apply(child)
        self._after(self.random.uniform(1, 5), lambda: self._start(Ref.of(child), child["metadata"]["uid"]))
        if self.random.random() < self.misfortune.preemptions:
            self._after(self.random.uniform(0, 60), lambda: self._preempt(ref))

    def _preempt(self, ref: Ref) -> None:
        workload = self.cluster.objects.get(ref)
        child = self._child(workload) if workload is not None else None
        if child is None or _over(child):
            return
        self._tell(ref, QuotaReserved="False", Admitted="False", Evicted="True", Preempted="True", reason="Preempted")
        if child["kind"] == "PyTorchJob":
            child["spec"]["runPolicy"]["suspend"] = True
        self.cluster.apply({**child, "status": {}})
        for pod in self.cluster.owned_by(child):
            if pod.kind == "Pod":
                self.cluster.objects[pod]["metadata"]["deletionTimestamp"] = iso(self.now)
                self._changed(self.cluster.objects[pod])

    def _tell(self, ref: Ref, reason: str = "Told", **told: str) -> None:
        said = [
            {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": iso(self.now)}
            for kind, status in told.items()
        ]
        self.cluster.set_status(ref, conditions=said)

    def _workloads(self) -> list[Json]:
        return [self.cluster.objects[ref] for ref in self.cluster.of_kind("Workload")]

    def _child(self, workload: Json) -> Json | None:
        if "ownerReferences" not in workload["metadata"]:
            return None
        (owner,) = workload["metadata"]["ownerReferences"]
        ref = Ref(owner["apiVersion"], owner["kind"], workload["metadata"]["namespace"], owner["name"])
        child = self.cluster.objects.get(ref)
        return child if child is not None and child["metadata"]["uid"] == owner["uid"] else None

    # Controllers and kubelet.

    def _start(self, ref: Ref, uid: str) -> None:
        """The pod of an admitted child runs; of a trainer, so does the work."""
        child = self.cluster.objects.get(ref)
        if child is None or child["metadata"]["uid"] != uid or not self._admitted(child):
            return
        name = f"{ref.name}-0" if ref.kind == "StatefulSet" else f"{ref.name}-worker-0"
        pod = Ref("v1", "Pod", ref.namespace, name)
        if pod in self.cluster.objects:  # one that ends is still there
            self._after(1, lambda: self._start(ref, uid))
            return
        self.cluster.start_pod(ref, name, next(pod_templates(child["spec"])))
        if ref.kind == "StatefulSet":
            self.cluster.set_status(ref, readyReplicas=1)
            return
        self.cluster.set_status(ref, conditions=conditions("Running"))
        run = self.cluster.objects[pod]["metadata"]["uid"]
        self._after(self.random.uniform(2, 30), lambda: self._end(ref, pod, run))

    def _end(self, ref: Ref, pod: Ref, run: str) -> None:
        """The work of a trainer's pod ends, if it is still the same pod."""
        found = self.cluster.objects.get(pod)
        if found is None or found["metadata"]["uid"] != run or "deletionTimestamp" in found["metadata"]:
            return
        failed = self.random.random() < self.misfortune.failures
        code = ExitCode.STORAGE if failed else ExitCode.DONE
        self.cluster.end_pod(pod, code, failure(code) if failed else SUCCESS, at=self.now)
        self.cluster.set_status(ref, conditions=conditions("Failed" if failed else "Succeeded"))
        for workload in self.cluster.owned_by(self.cluster.objects[ref]):
            if workload.kind == "Workload":
                self.cluster.remove(workload)

    def _stop(self, pod: Ref, uid: str) -> None:
        """A pod that is being deleted has ended within its grace."""
        if pod in self.cluster.objects and self.cluster.objects[pod]["metadata"]["uid"] == uid:
            self.cluster.end_pod(pod, ExitCode.PREEMPTED)

    def _admitted(self, child: Json) -> bool:
        return any(
            ref.kind == "Workload" and _holds(self.cluster.objects[ref], "Admitted")
            for ref in self.cluster.owned_by(child)
        )

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + timedelta(seconds=seconds), next(self._order), what))


def _family(obj: Json) -> Family:
    own = obj["metadata"].get("labels", {})
    return obj["metadata"]["namespace"], own.get(labels.KIND, ""), own.get(labels.NAME, "")


def _owner(child: Json) -> Ref:
    """The job that a child belongs to."""
    own = child["metadata"]["labels"]
    return Ref(labels.API_VERSION, own[labels.KIND], child["metadata"]["namespace"], own[labels.NAME])


def _holds(obj: Json, kind: str) -> bool:
    return any((c["type"], c["status"]) == (kind, "True") for c in obj.get("status", {}).get("conditions", []))


def _over(child: Json) -> bool:
    return _holds(child, "Succeeded") or _holds(child, "Failed")
