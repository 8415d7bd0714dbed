"""One object in a cluster in memory, with a clock, and controllers that move when a test says so."""

import copy
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_operator import labels
from posttrain_operator.api.status import Status, read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe.facts import AttemptFacts, observe_attempts
from posttrain_operator.reconcile import Outcome, reconcile
from posttrain_operator.settings import Settings
from support.memory_cluster import ENDED, CrashError, MemoryCluster, conditions, pod_templates

T = TypeVar("T")

DATA = {"uri": "pvc://posttrain/data"}
SPECS: dict[str, Json] = {
    "FilterJob": {"source": DATA, "byLabel": {"column": "pass_rate", "max": 0.5}, "parallelism": 2},
    "FineTuneJob": {"model": DATA, "dataset": DATA, "distributed": {"nodes": 2}},
    "RLJob": {"model": DATA, "dataset": DATA, "rewards": [{"name": "exact-match"}], "rollout": {"replicas": 2}},
    "UploadJob": {"source": DATA, "repository": {"id": "acme/model"}},
}
WORKLOADS = ("Job", "PyTorchJob", "StatefulSet")
ARTIFACT = ArtifactSummary(uri="pvc://posttrain/x/artifact", digest="0" * 64, type="model", bytes=5)
SUCCESS = StageResult(outcome="Succeeded", exit_code=ExitCode.DONE, metrics={"loss": 0.5}, artifact=ARTIFACT)


def failure(code: ExitCode, reason: str = "Broken", message: str = "it broke") -> StageResult:
    """What a stage tells that ends with a status other than 0."""
    outcome: Any = "Preempted" if code.preempted else "Failed"
    return StageResult(outcome=outcome, exit_code=code, reason=reason, message=message)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never waits; a cluster in memory answers at once."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("it waited")


class Scene:
    """One object and everything that happens around it."""

    def __init__(self, kind: str = "FineTuneJob", *, run: Json | None = None, **spec: Any) -> None:
        self.cluster = MemoryCluster()
        self.settings = Settings()
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.ref = self.cluster.apply(
            {
                "apiVersion": labels.API_VERSION,
                "kind": kind,
                "metadata": {"name": "x", "namespace": "team"},
                "spec": copy.deepcopy({**SPECS[kind], **spec, "run": run or {}}),
            }
        )

    # The operator.

    def reconcile(self) -> Outcome:
        """One pass of a process that knows nothing."""
        return finish(reconcile(self.cluster, self.ref, self.settings, now=self.now))

    def settle(self) -> None:
        """Passes until one changes nothing; a process that ends on the way is followed by another."""
        for _ in range(30):
            before = self.cluster.versions()
            try:
                self.reconcile()
            except CrashError:
                continue
            if self.cluster.versions() == before:
                return
        raise AssertionError(f"no end of writing: {self.cluster.writes[-6:]}")

    def wait(self, span: timedelta = timedelta(hours=1)) -> None:
        """Time passes."""
        self.now += span

    # What is there.

    @property
    def status(self) -> Status:
        return read_status(self.cluster.objects[self.ref].get("status"))

    @property
    def state(self) -> tuple[str | None, str]:
        """The phase and its reason."""
        ready = self.status.condition("Ready")
        return self.status.phase, ready.reason if ready is not None else ""

    @property
    def message(self) -> str:
        ready = self.status.condition("Ready")
        return ready.message if ready is not None else ""

    @property
    def outcomes(self) -> list[str | None]:
        return [attempt.outcome for attempt in self.status.attempts]

    @property
    def children(self) -> list[str]:
        """The children that the operator made, as KIND/NAME; ConfigMaps without their hashes."""
        names = [str(ref).rpartition("-")[0] if ref.kind == "ConfigMap" else str(ref) for ref in self.cluster.objects]
        return sorted(name for name in names if not name.startswith("Pod/") and name != str(self.ref))

    @property
    def attempts(self) -> dict[int, AttemptFacts]:
        """What the operator sees of its attempts."""
        objects = [obj for ref, obj in self.cluster.objects.items() if ref != self.ref]
        pods = [obj for obj in objects if obj["kind"] == "Pod"]
        children = [obj for obj in objects if obj["kind"] != "Pod"]
        return observe_attempts(self.cluster.objects[self.ref]["metadata"]["uid"], children, pods)

    def pods(self, role: str = "") -> list[Ref]:
        return [
            ref
            for ref in self.cluster.of_kind("Pod")
            if role in ("", self.cluster.objects[ref]["metadata"]["labels"][labels.ROLE])
        ]

    def live_attempts(self) -> set[str]:
        """The attempts that have a pod which has not ended."""
        alive = [pod for pod in self.pods() if self.cluster.objects[pod]["status"]["phase"] not in ENDED]
        return {self.cluster.objects[pod]["metadata"]["labels"][labels.ATTEMPT] for pod in alive}

    # The controllers and the kubelet.

    def start_pods(self) -> None:
        """Every controller makes the pods that are missing, and they run."""
        for ref in [ref for ref in self.cluster.objects if ref.kind in WORKLOADS]:
            workload = self.cluster.objects[ref]
            if not _at_work(workload):
                continue
            for name, template in _pods_of(workload):
                if Ref("v1", "Pod", ref.namespace, name) not in self.cluster.objects:
                    self.cluster.start_pod(ref, name, template)
        self.control()

    def end(self, pod: Ref, code: int, result: StageResult | None = None, *, reason: str = "") -> None:
        """One pod ends, and its controller notices."""
        self.cluster.end_pod(pod, code, result, reason=reason, at=self.now)
        self.control()

    def end_workers(self, code: int, result: StageResult | None = None) -> None:
        """All pods but servers end alike; the first one tells of the artifact."""
        for number, pod in enumerate([pod for pod in self.pods() if not self._is_server(pod) and self._alive(pod)]):
            told = result if number == 0 or code else None
            self.cluster.end_pod(pod, code, told, at=self.now + timedelta(seconds=number))
        self.control()

    def end_stopped_pods(self) -> None:
        """The pods that are being deleted end within their grace."""
        for pod in self.pods():
            if "deletionTimestamp" in self.cluster.objects[pod]["metadata"]:
                self.cluster.end_pod(pod, ExitCode.PREEMPTED)

    def control(self) -> None:
        """Every controller writes what it sees of its pods."""
        for ref in [ref for ref in self.cluster.objects if ref.kind in WORKLOADS]:
            workload = self.cluster.objects[ref]
            pods = [self.cluster.objects[pod] for pod in self.cluster.owned_by(workload) if pod.kind == "Pod"]
            status = _workload_status(workload, {pod["metadata"]["name"]: pod["status"]["phase"] for pod in pods})
            if _at_work(workload):
                self.cluster.set_status(ref, **status)
            if not _at_work(self.cluster.objects[ref]):
                self._stop_siblings(ref)

    def _stop_siblings(self, workload: Ref) -> None:
        for pod in self.cluster.owned_by(self.cluster.objects[workload]):
            if pod.kind == "Pod" and self._alive(pod):
                self.cluster.objects[pod]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    def _alive(self, pod: Ref) -> bool:
        return self.cluster.objects[pod]["status"]["phase"] not in ENDED

    def _is_server(self, pod: Ref) -> bool:
        return bool(self.cluster.objects[pod]["metadata"]["labels"][labels.ROLE] == "servers")


def started(kind: str = "FineTuneJob", *, run: Json | None = None, **spec: Any) -> Scene:
    """A scene whose first attempt is at work."""
    scene = Scene(kind, run=run, **spec)
    scene.settle()
    for _ in range(2):  # servers, then their trainer
        scene.start_pods()
        scene.settle()
    assert scene.state == ("Running", "Running")
    return scene


def retried(scene: Scene) -> None:
    """The attempt ended; its pods go, and the next one begins."""
    scene.settle()
    scene.end_stopped_pods()
    scene.wait()
    scene.settle()


def crash_at(number: int) -> Callable[[int], None]:
    """A hook for ``MemoryCluster`` that ends the process at a write."""

    def crash(write: int) -> None:
        if write == number:
            raise CrashError

    return crash


def crash_before_deletions(scene: Scene) -> None:
    """A pass whose process ends when the end of an attempt is on record but nothing is deleted yet."""
    scene.cluster.before_write = crash_at(scene.cluster.tries + 1)
    try:
        scene.reconcile()
    except CrashError:
        scene.cluster.before_write = lambda _: None
        return
    raise AssertionError("nothing was to be deleted")


def _at_work(workload: Json) -> bool:
    holding = {c["type"] for c in workload.get("status", {}).get("conditions", []) if c["status"] == "True"}
    suspended = workload["spec"].get("suspend") or workload["spec"].get("runPolicy", {}).get("suspend")
    return not suspended and not holding & {"Failed", "Succeeded", "Complete"}


def _pods_of(workload: Json) -> list[tuple[str, Json]]:
    """The names of a workload's pods, and the template of each."""
    name, spec = workload["metadata"]["name"], workload["spec"]
    template = next(pod_templates(spec))
    if workload["kind"] == "PyTorchJob":
        names = [f"{name}-worker-{index}" for index in range(spec["pytorchReplicaSpecs"]["Worker"]["replicas"])]
    elif workload["kind"] == "Job":
        names = [f"{name}-{index}-abcde" for index in range(spec["completions"])]
    else:
        names = [f"{name}-{index}" for index in range(spec["replicas"])]
    return [(pod, template) for pod in names]


def _workload_status(workload: Json, phases: Mapping[str, str]) -> Json:
    """What a controller writes."""
    names = [name for name, _ in _pods_of(workload)]
    running = list(phases.values()).count("Running")
    if workload["kind"] == "StatefulSet":
        return {"readyReplicas": running}
    complete = "Succeeded" if workload["kind"] == "PyTorchJob" else "Complete"
    if "Failed" in phases.values():
        return {"ready": running, "conditions": conditions("Failed")}
    if all(phases.get(name) == "Succeeded" for name in names):
        return {"ready": 0, "conditions": conditions(complete)}
    return {"ready": running, "conditions": conditions("Running") if running else []}
