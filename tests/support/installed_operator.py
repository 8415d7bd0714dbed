"""The operator in its own pod on a real cluster, installed with ``manifests/overlays/kind``."""

import json
import os
import re
import uuid
from collections import Counter
from pathlib import Path
from typing import Final

import yaml
from support.kubectl import Json, KubectlError, NamespacedKubectl
from support.waiting import wait_for

OVERLAY: Final = Path(__file__).resolve().parents[2] / "manifests" / "overlays" / "kind"
SYSTEM: Final = "posttrain-system"
ACCOUNT: Final = f"system:serviceaccount:{SYSTEM}:posttrain-operator"
WRITES: Final = ("POST", "PATCH", "DELETE")
"""What the operator changes objects with; it renews its Lease by PUT."""
_DEPLOYMENT: Final = "deployment/posttrain-operator"
_SELECTOR: Final = "app.kubernetes.io/name=posttrain-operator"
_COUNT: Final = re.compile(r'^posttrain_api_request_seconds_count\{.*verb="(\w+)".*\} (\S+)$', re.MULTILINE)
_METRICS: Final = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
_START_SECONDS: Final = 240.0
_TAIL_LINES: Final = 40
_PAUSE: Final = 2.0


class InstalledOperator:
    """The one that is there; a test may end its pod."""

    def __init__(self) -> None:
        self.kubectl = NamespacedKubectl(SYSTEM)

    def install(self, folder: Path, **settings: str) -> None:
        """Installs the overlay with settings of ``posttrain_operator.settings``, and waits for a new pod."""
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(_kustomization(folder, settings)), "utf-8")
        self._apply(folder)

    def reset(self) -> None:
        """Leaves the overlay as it is, without a test's settings."""
        self._apply(OVERLAY)

    def wait_ready(self) -> None:
        """Returns once the newest pod has seen the whole cluster."""
        limit = f"--timeout={_START_SECONDS:.0f}s"
        self.kubectl.run("rollout", "status", _DEPLOYMENT, limit, seconds=_START_SECONDS + 10)

    def pods(self) -> list[str]:
        """Its pods that are not being deleted, by uid."""
        return [pod["metadata"]["uid"] for pod in self._pods()]

    def kill(self) -> None:
        """Ends its pod without a warning, and waits until another one is ready."""
        before = self.pods()
        self.kubectl.run("delete", "pod", "--selector", _SELECTOR, "--force", "--grace-period=0", "--wait=false")
        wait_for(lambda: bool(set(self.pods()) - set(before)), "another pod of the operator", pause=_PAUSE)
        self.wait_ready()

    def lines(self) -> list[str]:
        """Its log."""
        return self.kubectl.run("logs", "--selector", _SELECTOR, "--tail=-1").splitlines()

    def tail(self) -> str:
        """Its pods, and the end of their logs."""
        try:
            pods = self.kubectl.objects("Pod")
        except KubectlError as error:
            return str(error)
        parts = [(pod["metadata"]["name"], pod["status"]) for pod in pods]
        return "\n\n".join(
            f"{name}: {json.dumps(status, indent=1)}\n{self.kubectl.logs(name, lines=_TAIL_LINES)}"
            for name, status in parts
        )

    def now(self) -> str:
        """The time of its last line, by its own clock."""
        return max((str(_record(line).get("time", "")) for line in self.lines()), default="")

    def errors(self, *, since: str) -> list[str]:
        """Its lines after a time that tell of an error, and those that are no line of a log, such as a traceback's.

        A container that ended and was started again is an error too: nobody asks it to.
        """
        errors, now = self._restarts(since=since), ""
        for line in self.lines():
            record = _record(line)
            now = str(record.get("time", now))
            if now > since and record.get("level") not in ("debug", "info", "warning"):
                errors.append(line)
        return errors

    def requests(self) -> Counter[str]:
        """How many requests it has made of the API server, by method."""
        counts: Counter[str] = Counter()
        for verb, number in _COUNT.findall(self.kubectl.python(_DEPLOYMENT, _METRICS)):
            counts[verb] += int(float(number))
        return counts

    def requests_between_renewals(self, renewals: int) -> Counter[str]:
        """The requests that it makes while it renews its Lease so many times, which it does every 2.5 seconds."""
        before = self.requests()
        enough = before["PUT"] + renewals
        wait_for(lambda: self.requests()["PUT"] >= enough, "the Lease to be renewed", pause=_PAUSE)
        return self.requests() - before

    def _pods(self) -> list[Json]:
        pods = json.loads(self.kubectl.run("get", "pods", "--selector", _SELECTOR, "--output", "json"))["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _restarts(self, *, since: str) -> list[str]:
        containers = [container for pod in self._pods() for container in pod["status"].get("containerStatuses", [])]
        ends = [container["lastState"].get("terminated", {}) for container in containers]
        return [f"the container was started again: {end}" for end in ends if end.get("finishedAt", "") > since]

    def _apply(self, folder: Path) -> None:
        self.kubectl.run("apply", "--server-side", "--force-conflicts", "-k", str(folder))
        self.wait_ready()


def _kustomization(folder: Path, settings: dict[str, str]) -> Json:
    """The overlay with settings, and with a mark that makes its pods new: an image may have changed under its name."""
    variables = [{"name": f"POSTTRAIN_{name.upper()}", "value": value} for name, value in settings.items()]
    patch = [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": each} for each in variables]
    mark: Json = {"op": "add", "path": "/spec/template/metadata/annotations", "value": {"run": uuid.uuid4().hex}}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(OVERLAY, folder.resolve())],
        "patches": [
            {"target": {"kind": "Deployment", "name": "posttrain-operator"}, "patch": yaml.safe_dump([*patch, mark])}
        ],
    }


def _record(line: str) -> Json:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
