"""The stand-in Hub in a pod, where the pods of UploadJobs find it by name."""

import json
import uuid
from pathlib import Path
from typing import Any, Final

from posttrain_operator.labels import MANAGER
from support import hub as stand_in
from support.helper_pods import pod_spec
from support.kubectl import Json, NamespacedKubectl

PORT: Final = 8080
TOKEN: Final = "hf_end_to_end"
_TAIL_LINES: Final = 25
_LABELS: Final = {"app": "hub"}
_ASK: Final = """
import sys, urllib.request as u
print(u.urlopen(u.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})).read().decode())
"""


class HubOnCluster:
    """A Hub in a namespace of its own that asks for ``TOKEN``; what was published is gone with it."""

    def __init__(self) -> None:
        self.kubectl = NamespacedKubectl(f"posttrain-e2e-hub-{uuid.uuid4().hex[:8]}")
        self.url = f"http://hub.{self.kubectl.namespace}.svc:{PORT}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.kubectl.namespace}}
        self.kubectl.apply([namespace])
        self.kubectl.apply([self._script(), self._pod(), self._service()])
        self.kubectl.run("wait", "--for=condition=Ready", "--timeout=120s", "pod/hub", seconds=130)

    def stop(self) -> None:
        """Takes it away."""
        self.kubectl.run("delete", "namespace", self.kubectl.namespace, "--ignore-not-found", seconds=120)

    def way_out(self) -> Json:
        """The policy that a team's namespace needs besides its own, which lets jobs out to HTTPS alone."""
        there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.kubectl.namespace}}}
        spec = {
            "podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": MANAGER}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [there], "ports": [{"protocol": "TCP", "port": PORT}]}],
        }
        metadata = {"name": "hub"}
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}

    def files(self, repository: str) -> dict[str, int]:
        """The files of a repository, such as ``models/acme/thing``, by path: their sizes in bytes."""
        answer = self.kubectl.python("hub", _ASK, f"http://127.0.0.1:{PORT}/api/{repository}/tree/main", TOKEN)
        entries: list[dict[str, Any]] = json.loads(answer)
        return {entry["path"]: entry["size"] for entry in entries}

    def tail(self) -> str:
        """The end of its log."""
        return self.kubectl.logs("hub", lines=_TAIL_LINES)

    def _script(self) -> Json:
        data = {"hub.py": Path(stand_in.__file__).read_text("utf-8")}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub"}, "data": data}

    def _pod(self) -> Json:
        command = ["python", "/hub/hub.py", self.url, TOKEN]
        spec = pod_spec(command, mounts={"/hub": {"configMap": {"name": "hub"}}})
        spec["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        metadata = {"name": "hub", "labels": _LABELS}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _service(self) -> Json:
        spec = {"selector": _LABELS, "ports": [{"port": PORT}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub"}, "spec": spec}
