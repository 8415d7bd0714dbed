"""A namespace of a real cluster: what is applied to it, and everything that is seen of the jobs and pods in it."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from support.kubectl import Json, KubectlError, NamespacedKubectl, has_kind

KINDS: Final = ("FilterJob", "FineTuneJob", "RLJob", "UploadJob")
CHILDREN: Final = ("PyTorchJob", "StatefulSet", "Job")
SECONDS: Final = 600.0
"""A tiny job takes one or two minutes where nothing else runs."""
_LOOK_SECONDS: Final = 1.0
_LOG_LINES: Final = 25

log = logging.getLogger(__name__)


class OnCluster:
    """One namespace, and the last that was seen of everything that was ever in it."""

    def __init__(self, kubectl: NamespacedKubectl) -> None:
        self.kubectl = kubectl
        self.pods: dict[str, Json] = {}
        """By uid: a pod that is made anew has the name of its predecessor."""
        self.children: dict[str, Json] = {}
        """PyTorchJobs, StatefulSets and Jobs, by name."""
        self.objects: dict[tuple[str, str], Json] = {}
        """Ours, by kind and name."""
        self.reasons: dict[tuple[str, str], list[str]] = {}
        """The reasons that each of ours was seen to tell, of any condition that does not hold."""
        self._told: dict[str, str] = {}

    def submit(self, obj: Json) -> "JobOnCluster":
        """Applies one of our objects."""
        self.kubectl.apply([obj])
        return self.job(obj["kind"], obj["metadata"]["name"])

    def job(self, kind: str, name: str) -> "JobOnCluster":
        """One of our objects, which need not have been seen yet."""
        return JobOnCluster(self, kind, name)

    def wait_for(
        self, condition: Callable[[], bool], what: str, *, seconds: float = SECONDS, patient: bool = False
    ) -> None:
        """Looks until the condition holds. An object that cannot go on ends the wait, unless it is ``patient``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.look()
            except KubectlError as error:  # a busy API server is asked again
                log.warning("%s", error)
            if condition():
                return
            stalled = [name for name, obj in self.objects.items() if holds(obj, "Stalled")]
            assert patient or not stalled, f"{stalled} cannot go on; that was found while waiting for {what}"
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
            time.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Takes in what is there, and tells what is new."""
        for obj in self.kubectl.objects(*KINDS, *CHILDREN, "Pod"):
            kind, name = obj["kind"], obj["metadata"]["name"]
            if kind in KINDS:
                self.objects[kind, name] = obj
                self._remember(kind, name)
                self._tell(f"{kind}/{name}", _in_words(obj.get("status", {})))
            elif kind == "Pod":
                self.pods[obj["metadata"]["uid"]] = obj
                self._tell(f"  pod {name}", obj["status"].get("phase", ""))
            else:
                self.children[name] = obj

    def wait_for_job(self, name: str) -> None:
        """Returns once a Job (batch/v1) of this namespace is complete."""
        self.wait_for(lambda: self._is_complete(name), f"Job/{name}")

    def wait_until_gone(self, *, seconds: float) -> None:
        """Returns once the namespace and everything in it is deleted."""
        gone = ("wait", "--for=delete", f"namespace/{self.kubectl.namespace}", f"--timeout={seconds:.0f}s")
        self.kubectl.run(*gone, seconds=seconds + 10)

    def events(self) -> list[Json]:
        """Every event in the namespace, oldest first."""
        return sorted(self.kubectl.objects("Event"), key=lambda event: str(event["metadata"]["creationTimestamp"]))

    def wrongs(self) -> list[str]:
        """What must not happen in any test: a pod that the namespace refuses, a defect of the operator."""
        events = self.events()
        wrongs = [event["message"] for event in events if "violates PodSecurity" in event["message"]]
        return wrongs + [event["message"] for event in events if event["reason"] == "InternalError"]

    def describe(self) -> str:
        """The state of everything, for whoever has to find out why a test failed."""
        try:
            return "\n\n".join([f"namespace {self.kubectl.namespace}", *self._description(), self._workloads()])
        except KubectlError as error:
            return f"the cluster could not be asked: {error}"

    def _description(self) -> list[str]:
        told = [(event["involvedObject"], *map(event.get, ("type", "reason", "message"))) for event in self.events()]
        lines = [f"{kind} {reason} {obj['kind']}/{obj['name']}: {text}" for obj, kind, reason, text in told]
        ours = self.kubectl.objects(*KINDS)
        parts = [f"{o['kind']}/{o['metadata']['name']}: {json.dumps(o.get('status'), indent=1)}" for o in ours]
        parts.append(self.kubectl.run("get", ",".join([*CHILDREN, "Pod", "pvc"]), "--output", "wide"))
        parts.append("events\n" + "\n".join(lines))
        for pod in self.kubectl.objects("Pod"):
            name = pod["metadata"]["name"]
            parts.append(f"log of {name}\n{self.kubectl.logs(name, lines=_LOG_LINES)}")
        return parts

    def _workloads(self) -> str:
        try:
            found = self.kubectl.objects("Workload") if has_kind("workloads.kueue.x-k8s.io") else []
        except KubectlError as error:
            return f"Kueue could not be asked: {error}"
        return "\n".join(f"Workload/{w['metadata']['name']}: {json.dumps(w.get('status'), indent=1)}" for w in found)

    def _is_complete(self, job: str) -> bool:
        child = self.children.get(job, {})
        assert not holds(child, "Failed"), f"Job/{job} failed"
        states = [
            container["state"].get("waiting", {}).get("reason")
            for pod in self.pods.values()
            if pod["metadata"].get("labels", {}).get("job-name") == job
            for container in pod["status"].get("containerStatuses", [])
        ]
        pulling = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"}
        assert not pulling & set(states), f"no node has the image of Job/{job}; docs/e2e.md says how to make it"
        return holds(child, "Complete")

    def _remember(self, kind: str, name: str) -> None:
        seen = self.reasons.setdefault((kind, name), [])
        conditions = self.objects[kind, name].get("status", {}).get("conditions", [])
        seen += [c["reason"] for c in conditions if c["status"] == "False" and c["reason"] not in seen]

    def _tell(self, what: str, how: str) -> None:
        if self._told.get(what) != how:
            self._told[what] = how
            log.info("%s %s: %s", self.kubectl.namespace.rpartition("-")[2], what, how)


@dataclass(frozen=True)
class JobOnCluster:
    """One of our objects, as it was seen last."""

    scene: OnCluster
    kind: str
    name: str

    @property
    def status(self) -> Json:
        status: Json = self.scene.objects.get((self.kind, self.name), {}).get("status", {})
        return status

    @property
    def attempts(self) -> list[Json]:
        found: list[Json] = self.status.get("attempts", [])
        return found

    @property
    def reasons(self) -> list[str]:
        """Every reason that it was seen to tell."""
        return self.scene.reasons.get((self.kind, self.name), [])

    @property
    def step(self) -> int:
        """How many steps it has told of while training."""
        progress = self.status.get("progress") or {}
        return int(progress["step"]) if progress.get("phase") == "training" else 0

    def condition(self, kind: str) -> Json:
        """The condition of a type; empty where it was not told yet."""
        conditions: list[Json] = self.status.get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def pods(self, *, attempt: int = 1, role: str = "") -> list[Json]:
        """The pods of one attempt that were ever seen, by name."""
        wanted = {
            "posttrain.dev/kind": self.kind,
            "posttrain.dev/name": self.name,
            "posttrain.dev/attempt": f"{attempt}",
        }
        wanted |= {"app.kubernetes.io/component": role} if role else {}
        pods = [pod for pod in self.scene.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]
        return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))

    def reach(self, reason: str, *, seconds: float = SECONDS) -> str:
        """Waits until it gives this reason for not being ready. Returns the sentence that it adds."""
        self.scene.wait_for(
            lambda: self.condition("Ready").get("reason") == reason, f"{self} to be {reason}", seconds=seconds
        )
        return str(self.condition("Ready")["message"])

    def wait_past(self, step: int) -> int:
        """Waits until its first attempt has trained beyond a step. Returns the step that it has told of then."""
        self.scene.wait_for(lambda: len(self.attempts) == 1 and self.step > step, f"step {step} of {self}")
        return self.step

    def succeed(self) -> None:
        """Waits for its success."""
        self.scene.wait_for(lambda: self.holds("Succeeded"), f"{self} to succeed")

    def fail(self, *, seconds: float = SECONDS) -> None:
        """Waits for its end without success."""
        self.scene.wait_for(lambda: self.holds("Failed"), f"{self} to fail", seconds=seconds, patient=True)

    def holds(self, condition: str) -> bool:
        """Whether a condition is True."""
        return holds({"status": self.status}, condition)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def holds(obj: Json, condition: str) -> bool:
    """Whether a condition of an object is True."""
    conditions = obj.get("status", {}).get("conditions") or []
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def step_of(checkpoint: str) -> int:
    """The step of a checkpoint's name."""
    return int(checkpoint.rpartition("-")[2])


def _in_words(status: Json) -> str:
    ready: Json = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    progress: Json = status.get("progress") or {}
    percent = f" {progress['percent'] // 10 * 10} %" if progress.get("percent") else ""
    return f"{status.get('phase', 'new')} ({ready.get('reason', '')}){percent}"
