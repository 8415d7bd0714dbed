"""The API server of a local cluster, and the glue between its controllers and its kubelet."""

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from posttrain_contract import layout
from posttrain_contract.progress import Progress
from posttrain_operator import labels
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Event, Json, Ref
from posttrain_operator.errors import Conflict
from pydantic import ValidationError

from posttrain.local import http
from posttrain.local.addresses import Addresses, free_port
from posttrain.local.controllers import Control, control_job, control_pytorchjob, control_stateful_set, phase
from posttrain.local.kubelet import Kubelet
from posttrain.local.mounts import Mounts
from posttrain.local.objects import ObjectStore
from posttrain.local.workspace import LocalOptions

_WORKLOADS = ("Job", "PyTorchJob", "StatefulSet")


class LocalCluster:
    """Implements ``posttrain_operator.cluster.Cluster`` in this process."""

    def __init__(
        self, options: LocalOptions, store: ObjectStore, *, lock_descriptor: int, changed: Callable[[], None]
    ) -> None:
        self._options = options
        self._store = store
        self._changed = changed
        self._children: dict[Ref, Json] = {}
        self._ports: dict[str, int] = {}
        self._addresses = Addresses(options.workspace)
        self._kubelet = Kubelet(
            mounts=Mounts(options, self._config_map),
            addresses=self._addresses,
            log_file=self._log_file,
            changed=changed,
            lock_descriptor=lock_descriptor,
        )
        self.draining = False
        """Set to suspend every object: what Ctrl-C does."""

    async def get(self, ref: Ref) -> Json | None:
        """See ``Cluster.get``; while draining, every object says ``run.suspend``."""
        if ref.kind not in KINDS:
            return copy.deepcopy(self._children.get(ref))
        obj = self._store.read(ref)
        if obj is not None and self.draining:
            obj["spec"] = {**obj["spec"], "run": {**obj["spec"].get("run", {}), "suspend": True}}
        return obj

    async def read(self, ref: Ref) -> Json | None:
        """See ``Cluster.read``."""
        return await self.get(ref)

    async def refresh(self, namespace: str, wanted: Mapping[str, str]) -> None:
        """See ``Cluster.refresh``; what is seen here is always what is there."""

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        """See ``Cluster.list_objects``."""
        return [
            copy.deepcopy(child)
            for ref, child in self._children.items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and namespace in ("", ref.namespace)
            and wanted.items() <= child["metadata"].get("labels", {}).items()
        ]

    async def create(self, obj: Json) -> Json:
        """See ``Cluster.create``."""
        ref = Ref.of(obj)
        if ref in self._children:
            raise Conflict(f"{ref} exists")
        stored = copy.deepcopy(obj)
        stored["metadata"]["uid"] = str(uuid4())
        stored.setdefault("status", {})
        self._children[ref] = stored
        self._changed()
        return copy.deepcopy(stored)

    async def repair(self, obj: Json) -> None:
        """See ``Cluster.repair``: nobody else changes what is here."""

    async def delete(self, ref: Ref, *, uid: str) -> None:
        """See ``Cluster.delete``: workloads go when their pods have ended, other objects at once."""
        obj = self._children.get(ref)
        if obj is None or obj["metadata"]["uid"] != uid or "deletionTimestamp" in obj["metadata"]:
            return
        if ref.kind in _WORKLOADS:
            obj["metadata"]["deletionTimestamp"] = datetime.now(UTC).isoformat()
        else:
            del self._children[ref]
        self._changed()

    async def patch_status(self, obj: Json, status: Json) -> Json:
        """See ``Cluster.patch_status``."""
        stored = self._store.read(Ref.of(obj))
        if stored is None or stored["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise Conflict(f"{Ref.of(obj)} is gone")
        stored = {**stored, "status": status}
        self._store.write(stored)
        return stored

    async def tell(self, obj: Json, event: Event) -> None:
        """See ``Cluster.tell``; the status lines of the command say it already."""

    async def progress(self, pod: Json) -> Progress | None:
        """See ``Cluster.progress``."""
        ip = pod["status"].get("podIP")
        body = await http.get(f"http://{ip}:{layout.TELEMETRY_PORT}/progress") if ip else None
        try:
            return Progress.model_validate_json(body) if body else None
        except ValidationError:
            return None

    def server_address(self, *, namespace: str, service: str, pod: str) -> str:
        """See ``Cluster.server_address``: a loopback address of the pod's own."""
        del namespace, service
        return self._addresses.of(pod)

    def step(self) -> None:
        """Lets every controller act once. Raises what the kubelet could not tell in a pod's status."""
        self._kubelet.check()
        for workload in [c for ref, c in self._children.items() if ref.kind in _WORKLOADS]:
            pods = self._pods(workload)
            if "deletionTimestamp" in workload["metadata"]:
                self._finish_deletion(workload, pods)
                continue
            control = self._control(workload, pods)
            workload["status"] = control.status
            for pod in control.stop:
                self._kubelet.stop(pod)
            for pod in control.create:
                pod["metadata"]["uid"] = str(uuid4())
                self._children[Ref.of(pod)] = pod
                self._kubelet.start(pod)

    @property
    def busy(self) -> bool:
        """Whether a pod is alive or a deletion is under way."""
        return any(
            "deletionTimestamp" in child["metadata"] or (ref.kind == "Pod" and phase(child) in ("Pending", "Running"))
            for ref, child in self._children.items()
        )

    def kill(self) -> None:
        """Ends every process at once."""
        self._kubelet.kill()

    async def join(self) -> None:
        """Waits until every process has ended."""
        await self._kubelet.join()

    def _control(self, workload: Json, pods: list[Json]) -> Control:
        if workload["kind"] == "Job":
            return control_job(workload, pods)
        if workload["kind"] == "StatefulSet":
            return control_stateful_set(workload, pods)
        return control_pytorchjob(workload, pods, address=self._addresses.of, master_port=self._master_port)

    def _finish_deletion(self, workload: Json, pods: list[Json]) -> None:
        alive = [pod for pod in pods if phase(pod) in ("Pending", "Running")]
        for pod in alive:
            self._kubelet.stop(pod)
        if not alive:
            for obj in (*pods, workload):
                del self._children[Ref.of(obj)]
            self._changed()

    def _pods(self, workload: Json) -> list[Json]:
        uid = workload["metadata"]["uid"]
        return [
            child
            for ref, child in self._children.items()
            if ref.kind == "Pod" and child["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def _master_port(self, job: str) -> int:
        return self._ports.setdefault(job, free_port())

    def _config_map(self, namespace: str, name: str) -> Json:
        return self._children[Ref("v1", "ConfigMap", namespace, name)]

    def _log_file(self, pod: Json) -> Path:
        metadata = pod["metadata"]
        own = metadata["labels"]
        owner = self._store.read(Ref(labels.API_VERSION, own[labels.KIND], metadata["namespace"], own[labels.NAME]))
        assert owner is not None  # noqa: S101 - a pod's owner is never removed during a run
        return self._options.logs(owner) / f"{pod['metadata']['name']}.log"
