"""The quickstart in a namespace of a real cluster: applied as a user applies it, and watched to its end."""

import copy
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml
from support.kubectl import Json, KubectlError, NamespacedKubectl

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
KINDS: Final = ("FilterJob", "FineTuneJob", "RLJob", "UploadJob")
CHILDREN: Final = ("PyTorchJob", "StatefulSet", "Job")
RESOURCES: Final = {"cpu": "800m", "memory": "3Gi"}
"""Two pods at a time fit on a node of two cores."""
_LOOK_SECONDS: Final = 1.0
_LOG_LINES: Final = 25
_JOB_SECONDS: Final = 600.0

CHECK = """
from pathlib import Path
from posttrain_contract import layout
from posttrain_runtime import store
for path in sorted(Path("/claim").rglob(layout.MANIFEST)):
    manifest = store.read_manifest(path.parent)
    damage = "no manifest" if manifest is None else store.damage(path.parent, manifest, hashes=True)
    print(path.parent.parent.name, damage or "whole", manifest and manifest.digest)
"""
"""Run beside the claim: one line for each artifact on it."""

log = logging.getLogger(__name__)


class OnCluster:
    """The objects of the quickstart, and everything that was seen of them and their pods."""

    def __init__(self, kubectl: NamespacedKubectl, *, image: str) -> None:
        self.kubectl = kubectl
        self.pods: dict[str, Json] = {}
        """Every pod that was ever seen, as it was seen last."""
        self.children: dict[str, Json] = {}
        """Every PyTorchJob, StatefulSet and Job that was ever seen, as it was seen last."""
        self.objects: dict[str, Json] = {}
        """Ours, by kind."""
        self.operator_log: Callable[[], str] = lambda: "there was no operator"
        self._image = image
        self._told: dict[str, str] = {}

    def make_inputs(self) -> None:
        """What the quickstart's page says: a ConfigMap with the script, the claim, and the Job that fills it."""
        script = f"--from-file={EXAMPLE / 'inputs' / 'make_inputs.py'}"
        self.kubectl.run("create", "configmap", "quickstart-inputs", script)
        self.kubectl.apply(self._inputs())
        self._run_job("quickstart-inputs")

    def apply(self) -> None:
        """Applies the four objects, unchanged but for the gang of two and for what a small node can give."""
        self.kubectl.apply(map(_fitted, map(_document, sorted(EXAMPLE.glob("*.yaml")))))

    def status(self, kind: str) -> Json:
        """The status of the object of a kind as it was seen last."""
        status: Json = self.objects.get(kind, {}).get("status", {})
        return status

    def step(self, kind: str) -> int:
        """How many steps the object of a kind has told of while training."""
        progress = self.status(kind).get("progress") or {}
        return int(progress["step"]) if progress.get("phase") == "training" else 0

    def pods_of(self, kind: str, *, attempt: int = 1) -> dict[str, Json]:
        """The pods of one attempt of the object of a kind, by name."""
        wanted = {"posttrain.dev/kind": kind, "posttrain.dev/attempt": str(attempt)}
        return {name: pod for name, pod in self.pods.items() if wanted.items() <= pod["metadata"]["labels"].items()}

    def wait_for(self, condition: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Looks until the condition holds; an object that cannot go on ends the wait."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.look()
            except KubectlError as error:  # a busy API server is asked again
                log.warning("%s", error)
            if condition():
                return
            stalled = [kind for kind in KINDS if _holds(self.status(kind), "Stalled")]
            assert not stalled, f"{stalled} cannot go on; that was found while waiting for {what}"
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
            time.sleep(_LOOK_SECONDS)

    def wait_until_all_succeeded(self, *, seconds: float) -> None:
        """Returns once all four objects have succeeded."""
        self.wait_for(self._all_succeeded, "the four objects to succeed", seconds=seconds)

    def _all_succeeded(self) -> bool:
        return all(_holds(self.status(kind), "Succeeded") for kind in KINDS)

    def look(self) -> None:
        """Takes in what is there, and tells what is new."""
        for obj in self.kubectl.objects(*KINDS, *CHILDREN, "Pod"):
            kind, name = obj["kind"], obj["metadata"]["name"]
            if kind in KINDS:
                self.objects[kind] = obj
                self._tell(f"{kind}/{name}", _in_words(obj.get("status", {})))
            elif kind == "Pod":
                self.pods[name] = obj
                self._tell(f"  pod {name}", obj["status"].get("phase", ""))
            else:
                self.children[name] = obj

    def artifacts(self) -> dict[str, tuple[str, str]]:
        """The artifacts on the claim: by object, how its files compare with its manifest, and its digest."""
        job = next(obj for obj in self._inputs() if obj["kind"] == "Job")
        job["metadata"]["name"] = "artifacts"
        job["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", CHECK]
        self.kubectl.apply([job])
        self._run_job("artifacts")
        lines = self.kubectl.run("logs", "job/artifacts").splitlines()
        return {(found := line.rsplit(maxsplit=2))[0]: (found[1], found[2]) for line in lines}

    def events(self) -> list[Json]:
        """Every event in the namespace, oldest first."""
        return sorted(self.kubectl.objects("Event"), key=lambda event: str(event["metadata"]["creationTimestamp"]))

    def describe(self) -> str:
        """The state of everything, for whoever has to find out why a test failed."""
        try:
            return "\n\n".join(self._description())
        except KubectlError as error:
            return f"the cluster could not be asked: {error}"

    def _description(self) -> list[str]:
        told = [(event["type"], event["reason"], event["involvedObject"], event["message"]) for event in self.events()]
        lines = [f"{kind} {reason} {obj['kind']}/{obj['name']}: {text}" for kind, reason, obj, text in told]
        parts = [f"{obj['kind']}: {json.dumps(obj.get('status'), indent=1)}" for obj in self.kubectl.objects(*KINDS)]
        parts.append(self.kubectl.run("get", ",".join([*CHILDREN, "Pod", "pvc"]), "--output", "wide"))
        parts.append("events\n" + "\n".join(lines))
        for pod in self.kubectl.objects("Pod"):
            name = pod["metadata"]["name"]
            parts.append(f"log of {name}\n{self.kubectl.logs(name, lines=_LOG_LINES)}")
        return [*parts, f"log of the operator\n{self.operator_log()}"]

    def _inputs(self) -> list[Json]:
        """The example's claim and Job, with the image of this test."""
        documents: list[Json] = list(yaml.safe_load_all((EXAMPLE / "inputs" / "inputs.yaml").read_text("utf-8")))
        job = next(document for document in documents if document["kind"] == "Job")
        job["spec"]["template"]["spec"]["containers"][0]["image"] = self._image
        return documents

    def _run_job(self, name: str) -> None:
        self.wait_for(lambda: self._is_complete(name), f"Job/{name}", seconds=_JOB_SECONDS)

    def _is_complete(self, job: str) -> bool:
        status: Json = self.children.get(job, {}).get("status", {})
        assert not _holds(status, "Failed"), f"Job/{job} failed"
        states = [
            container["state"].get("waiting", {}).get("reason")
            for pod in self.pods.values()
            if pod["metadata"]["labels"].get("job-name") == job
            for container in pod["status"].get("containerStatuses", [])
        ]
        assert "ErrImagePull" not in states, f"no node has the image {self._image}; docs/e2e.md says how to make it"
        return _holds(status, "Complete")

    def _tell(self, what: str, how: str) -> None:
        if self._told.get(what) != how:
            self._told[what] = how
            log.info("%s: %s", what, how)


def _document(path: Path) -> Json:
    document: Json = yaml.safe_load(path.read_text("utf-8"))
    return document


def _fitted(obj: Json) -> Json:
    obj = copy.deepcopy(obj)
    obj["spec"]["run"] = {"resources": RESOURCES}
    if obj["kind"] == "FineTuneJob":
        obj["spec"]["distributed"] = {"nodes": 2}
        obj["spec"]["training"]["batchSize"] //= 2  # as many rows in a step as one pod has
    return obj


def _holds(status: Json, condition: str) -> bool:
    return any(c["type"] == condition and c["status"] == "True" for c in status.get("conditions", []))


def _in_words(status: Json) -> str:
    ready: Json = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    progress: Json = status.get("progress") or {}
    percent = f" {progress['percent'] // 10 * 10} %" if progress.get("percent") else ""
    return f"{status.get('phase', 'new')} ({ready.get('reason', '')}){percent}"
