"""Two objects of a pipeline in a cluster in memory, with everybody who acts on them, and a clock."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from posttrain_contract.base import Problem
from posttrain_contract.result import StageResult
from posttrain_operator import labels
from posttrain_operator.api.resources import is_ours
from posttrain_operator.api.status import Status, read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.errors import ApiUnavailable, InvalidSpec, Waiting
from posttrain_operator.labels import Reason
from posttrain_operator.reconcile import Outcome, reconcile
from posttrain_operator.settings import Settings
from support import memory_controllers as controllers
from support import memory_kubelet as kubelet
from support.laws import Laws, made_for
from support.memory_cluster import CrashError
from support.scene import SPECS, SUCCESS, finish
from support.viewed_cluster import ViewedCluster

NAMESPACE: Final = "team"
DATASET: Final = SUCCESS.model_copy(
    update={"artifact": SUCCESS.artifact and SUCCESS.artifact.model_copy(update={"type": "dataset"})}
)
READS: Final = {
    "FilterJob": {"source": {"from": "FilterJob/up"}},
    "FineTuneJob": {"dataset": {"from": "FilterJob/up"}},
    "RLJob": {"dataset": {"from": "FilterJob/up"}},
    "UploadJob": {"source": {"from": "FilterJob/up"}},
}
_MANY: Final = 12
"""Passes after which one that still changes something will do so for ever."""


class World:
    """``x`` is of the kind that a test is about; with a pipeline it reads what the FilterJob ``up`` publishes."""

    def __init__(self, kind: str, *, pipeline: bool) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.skew = timedelta()
        """By how much the operator's clock is wrong."""
        self.settings = Settings()
        self.cluster = ViewedCluster(lambda: self.now)
        self.laws = Laws(self.cluster)
        self.x = Ref(labels.API_VERSION, kind, NAMESPACE, "x")
        self.up = Ref(labels.API_VERSION, "FilterJob", NAMESPACE, "up")
        self._past: deque[dict[Ref, Json]] = deque(maxlen=12)
        self.refs = (self.x, self.up) if pipeline else (self.x,)
        for ref in self.refs:
            self.apply(ref)
        self.remember()

    # The user.

    def apply(self, ref: Ref) -> None:
        """Creates an object that is not there."""
        if ref not in self.cluster.objects:
            reads = READS[ref.kind] if ref == self.x and len(self.refs) > 1 else {}
            self.cluster.apply(
                {
                    "apiVersion": ref.api_version,
                    "kind": ref.kind,
                    "metadata": {"name": ref.name, "namespace": ref.namespace},
                    "spec": {**copy.deepcopy(SPECS[ref.kind]), **reads, "run": {}},
                }
            )

    def edit(self, ref: Ref, **run: Any) -> None:
        """Changes fields of ``spec.run``; None takes one away."""
        if ref in self.cluster.objects:
            new = {**self.cluster.objects[ref]["spec"]["run"], **run}
            self.cluster.edit(ref, run={key: value for key, value in new.items() if value is not None})

    def delete(self, ref: Ref) -> None:
        """Deletes an object; what belongs to it is left to the garbage collector."""
        if ref in self.cluster.objects:
            self.cluster.remove(ref)

    def make_anew(self, ref: Ref) -> None:
        """Deletes an object and creates it again, which gives it another uid."""
        self.delete(ref)
        self.apply(ref)

    # The operator.

    def look(self, ref: Ref) -> Outcome | None:
        """One pass; None when it was cut short."""
        seen = finish(self.cluster.get(ref))
        self.laws.acting = seen["metadata"]["uid"] if seen is not None else ""
        try:
            return finish(reconcile(self.cluster, ref, self.settings, now=self.now + self.skew))
        except (CrashError, ApiUnavailable):
            self.cluster.catch_up()  # by lists, with which another process begins
            return None

    def look_at_the_past(self, ref: Ref, ago: int) -> None:
        """One pass by a process that still sees everything as it was so many steps ago."""
        with self.cluster.as_of(self._past[-min(ago, len(self._past))]):
            self.look(ref)

    def remember(self) -> None:
        """A step is over."""
        self._past.append(dict(self.cluster.objects))

    def settle(self) -> None:
        """Passes until every object was looked at as all that concerns it is now."""
        seen: dict[Ref, dict[Ref, str]] = {}
        for _ in range(_MANY):
            late = [ref for ref in self.refs if seen.get(ref) != self.concerning(ref)]
            if not late:
                return
            for ref in late:
                seen[ref] = self.concerning(ref)
                self.look(ref)
        raise AssertionError(f"no end of writing: {self.cluster.writes[-6:]}")

    def look_with(self, ref: Ref, at: int, event: Callable[[], object], *, after: bool) -> None:
        """One pass, and something happens right before or after its write with this number."""
        number = self.cluster.tries + at

        def happen(write: int) -> None:
            if write == number:
                event()

        hook = "after_write" if after else "before_write"
        setattr(self.cluster, hook, happen)
        try:
            self.look(ref)
        finally:
            setattr(self.cluster, hook, lambda _: None)

    def refuse(self, kinds: Iterable[str], how: str) -> None:
        """From now on the API server does not take new children of these kinds."""
        refused = frozenset(kinds)
        problem = Problem(("spec", "run"), "no")
        errors: dict[str, Callable[[], Exception]] = {
            "invalid": lambda: InvalidSpec([problem]),
            "forbidden": lambda: Waiting(Reason.REFUSED, "no", stalled=True),
            "unavailable": lambda: ApiUnavailable("down"),
        }
        self.cluster.refusal = lambda obj: errors[how]() if obj["kind"] in refused else None

    # Everybody else.

    def controllers_act(self) -> None:
        for ref in controllers.workloads(self.cluster):
            if ref in self.cluster.objects:
                controllers.act(self.cluster, ref)

    def controllers_act_and_pods_start(self) -> None:
        self.controllers_act()
        self.pods_start()
        self.controllers_act()

    def pods_start(self) -> None:
        for pod in kubelet.pods(self.cluster):
            kubelet.start(self.cluster, pod)

    def end(self, pod: Ref, code: int, answer: StageResult | str = "", *, reason: str = "") -> None:
        """The container of a running pod ends."""
        obj = self.cluster.objects[pod]
        if code == 0 and isinstance(answer, StageResult) and answer.artifact is not None:
            self.laws.succeeded(obj)
        kubelet.end(self.cluster, pod, code, answer, reason=reason)

    def work_is_done(self, ref: Ref) -> bool:
        """All workers of an object that run end well, and the first tells of the artifact; whether there were any."""
        workers = self.workers(ref)
        done = self.success(ref)
        for number, pod in enumerate(workers):
            self.end(pod, 0, done if number == 0 else done.model_copy(update={"artifact": None}))
        return bool(workers)

    def success(self, ref: Ref) -> StageResult:
        return DATASET if ref == self.up else SUCCESS

    def stopped_pods_end(self, *, told: bool) -> None:
        """Pods that are being deleted are gone, or first say how they ended."""
        for pod in kubelet.stopping(self.cluster):
            if told and kubelet.is_running(self.cluster, pod):
                kubelet.end(self.cluster, pod, 143)
            else:
                kubelet.vanish(self.cluster, pod)

    def queue_admits(self) -> None:
        controllers.look_at_queues(self.cluster)
        for workload in self.cluster.of_kind("Workload"):
            controllers.admit(self.cluster, workload)

    def queue_preempts(self) -> None:
        for workload in self.cluster.of_kind("Workload"):
            controllers.preempt(self.cluster, workload)

    def somebody_deletes_the_first_child(self) -> None:
        for child in self.children()[:1]:
            self.cluster.remove(child)

    def somebody_takes_a_name(self, child: Ref) -> None:
        """An object of somebody else has the name of a child that is not there."""
        if child not in self.cluster.objects:
            metadata = {"name": child.name, "namespace": child.namespace}
            foreign = {
                "apiVersion": child.api_version,
                "kind": child.kind,
                "metadata": metadata,
                "spec": {"mine": True},
            }
            self.cluster.apply(foreign)
            self.laws.foreign[child] = self.cluster.objects[child]

    def somebody_gives_names_back(self) -> None:
        for ref in self.laws.foreign:
            self.cluster.objects.pop(ref)
        self.laws.foreign.clear()

    def skewed_by(self, skew: timedelta) -> None:
        """From now on the operator's clock is wrong by so much."""
        self.skew = skew
        self.laws.skewed = self.laws.skewed or bool(skew)

    def turn(self, *, without: Iterable[str] = ()) -> None:
        """Everybody but some does once what there is to do, in 15 seconds, and no pod ends by itself."""
        self.now += timedelta(seconds=15)
        for name, move in MOVES.items():
            if name not in without:
                move(self)

    # What is there.

    def status(self, ref: Ref) -> Status:
        return read_status(self.cluster.objects[ref].get("status"))

    def running(self) -> list[Ref]:
        """Pods that run, also those that are being deleted."""
        return [pod for pod in kubelet.pods(self.cluster) if kubelet.is_running(self.cluster, pod)]

    def pending(self) -> list[Ref]:
        """Pods that have not started."""
        alive = [pod for pod in kubelet.pods(self.cluster) if kubelet.is_alive(self.cluster, pod)]
        return [pod for pod in alive if not kubelet.is_running(self.cluster, pod)]

    def workers(self, ref: Ref) -> list[Ref]:
        """Pods of an object, without servers, that run and are not being deleted."""
        obj = self.cluster.objects.get(ref)
        return [
            pod
            for pod in kubelet.pods(self.cluster)
            if obj is not None
            and made_for(self.cluster.objects[pod]) == obj["metadata"]["uid"]
            and kubelet.is_running(self.cluster, pod)
            and not kubelet.is_server(self.cluster, pod)
            and "deletionTimestamp" not in self.cluster.objects[pod]["metadata"]
        ]

    def name_of_child(self, number: int) -> Ref:
        """The main child of ``x``'s attempt with this number."""
        stage = {"FilterJob": "filter", "FineTuneJob": "finetune", "RLJob": "rl", "UploadJob": "upload"}[self.x.kind]
        if stage in ("finetune", "rl"):
            return Ref("kubeflow.org/v1", "PyTorchJob", NAMESPACE, f"x-{stage}-{number}")
        return Ref("batch/v1", "Job", NAMESPACE, f"x-{stage}-{number}")

    def children(self) -> list[Ref]:
        """Everything that is neither an object of ours, nor a pod, nor a queue's, nor somebody else's."""
        others = ("Pod", "Workload", "LocalQueue")
        return [
            ref
            for ref, obj in self.cluster.objects.items()
            if not is_ours(obj) and ref.kind not in others and ref not in self.laws.foreign
        ]

    def children_of(self, uid: str) -> list[Ref]:
        """What the operator made for the object with this uid."""
        return [
            ref
            for ref in self.children()
            if any(o["uid"] == uid for o in self.cluster.objects[ref]["metadata"].get("ownerReferences", []))
        ]

    def concerning(self, ref: Ref) -> dict[Ref, str]:
        """The versions of all whose events bring an object a pass."""
        wanted = {labels.KIND: ref.kind, labels.NAME: ref.name}
        upstream = self.up if ref == self.x else ref
        return {
            other: obj["metadata"]["resourceVersion"]
            for other, obj in self.cluster.objects.items()
            if other in (ref, upstream)
            or other.kind == "Workload"
            or wanted.items() <= obj["metadata"].get("labels", {}).items()
        }

    def said(self, ref: Ref) -> tuple[str, str, str]:
        """The phase of an object, its reason and its message."""
        status = self.status(ref)
        ready = status.condition("Ready")
        return status.phase or "", ready.reason if ready else "", ready.message if ready else ""


MOVES: Final[Mapping[str, Callable[[World], object]]] = {
    "garbage collector": lambda world: world.cluster.collect_garbage(),
    "stopped pods": lambda world: world.stopped_pods_end(told=False),
    "operator": World.settle,
    "controllers": World.controllers_act,
    "queue": World.queue_admits,
    "kubelet": World.controllers_act_and_pods_start,
}
"""Everybody, in the order in which they move."""
