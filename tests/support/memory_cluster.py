"""A cluster in memory: the API server's manners, with controllers and a kubelet that do what a test tells them."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from posttrain_contract.progress import Progress
from posttrain_contract.result import StageResult
from posttrain_operator.cluster import Event, Json, Ref
from posttrain_operator.errors import Conflict

ENDED = ("Succeeded", "Failed")


class CrashError(Exception):
    """The operator's process ends here."""


class MemoryCluster:
    """Implements ``posttrain_operator.cluster.Cluster`` as an API server answers.

    Names are unique, a stale write of the status conflicts, the status is written apart from the rest, a deletion names
    the uid that it means, and dependents follow their owner: pods after their grace, everything else at once.
    """

    def __init__(self) -> None:
        self.objects: dict[Ref, Json] = {}
        self.writes: list[str] = []
        """Every write of the operator that was accepted, in order."""
        self.reads: list[str] = []
        """The objects that it asked for by name, in order."""
        self.refreshes = 0
        """Times that it asked again before it concluded something from absence."""
        self.events: dict[str, Event] = {}
        """What people were told, by name."""
        self.tries = 0
        """Writes that it asked for or was about to ask for."""
        self.answers: dict[str, Progress] = {}
        """What pods answer at /progress, by pod name."""
        self.before_write: Callable[[int], None] = lambda _: None
        """Called with the number of the try, from 0, before the write happens."""
        self.after_write: Callable[[int], None] = lambda _: None
        """Called when it has happened, but the operator does not know yet."""
        self._uids = itertools.count(1)
        self._versions = itertools.count(1)

    # The operator's side.

    async def get(self, ref: Ref) -> Json | None:
        self.reads.append(str(ref))
        return copy.deepcopy(self.objects.get(ref))

    async def read(self, ref: Ref) -> Json | None:
        return await self.get(ref)

    async def refresh(self, namespace: str, wanted: Mapping[str, str]) -> None:
        self.refreshes += 1

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        return [
            copy.deepcopy(obj)
            for ref, obj in self.objects.items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and namespace in ("", ref.namespace)
            and wanted.items() <= obj["metadata"].get("labels", {}).items()
        ]

    async def create(self, obj: Json) -> Json:
        ref = Ref.of(obj)
        assert "status" not in obj, "an API server drops the status of a new object"
        with _Write(self, f"create {ref}"):
            if ref in self.objects:
                raise Conflict(f"{ref} exists")
            self._store(obj)
            return self._given(self.objects[ref])

    async def repair(self, obj: Json) -> None:
        ref = Ref.of(obj)
        with _Write(self, f"repair {ref}"):
            self._store({**self.objects[ref], "spec": obj["spec"]})

    async def delete(self, ref: Ref, *, uid: str) -> None:
        with _Write(self, f"delete {ref}"):
            obj = self.objects.get(ref)
            if obj is not None and obj["metadata"]["uid"] == uid:
                self.remove(ref)

    async def patch_status(self, obj: Json, status: Json) -> Json:
        ref = Ref.of(obj)
        with _Write(self, f"status {ref}"):
            stored = self.objects.get(ref)
            if stored is None or stored["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                raise Conflict(f"{ref} has changed")
            if stored.get("status") != status:
                self._store({**stored, "status": status})
            return self._given(self.objects[ref])

    async def tell(self, obj: Json, event: Event) -> None:
        self.events[event.name] = event

    async def progress(self, pod: Json) -> Progress | None:
        return self.answers.get(pod["metadata"]["name"])

    def server_address(self, *, namespace: str, service: str, pod: str) -> str:
        return f"{pod}.{service}.{namespace}.svc"

    # The user's side.

    def apply(self, obj: Json) -> Ref:
        """Puts an object there as it is, status included; what the API server sets is set unless it is given."""
        self._store(obj)
        return Ref.of(obj)

    def edit(self, ref: Ref, **spec: Any) -> None:
        """Changes fields of ``spec``, which makes a new generation."""
        obj = copy.deepcopy(self.objects[ref])
        obj["spec"].update(spec)
        obj["metadata"]["generation"] += 1
        self._store(obj)

    def remove(self, ref: Ref) -> None:
        """Deletes an object; the garbage collector follows at once."""
        obj = self.objects.pop(ref)
        for dependent in self.owned_by(obj):
            if dependent.kind == "Pod" and self._phase(dependent) not in ENDED:
                self.objects[dependent]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            else:
                self.remove(dependent)

    # The controllers' and the kubelet's side.

    def set_status(self, ref: Ref, **status: Any) -> None:
        """A controller writes fields of an object's status."""
        obj = copy.deepcopy(self.objects[ref])
        obj.setdefault("status", {}).update(status)
        self._store(obj)

    def start_pod(self, owner: Ref, name: str, template: Json) -> Ref:
        """A controller makes a pod, and the kubelet starts it."""
        controller = self.objects[owner]
        metadata = {
            "name": name,
            "namespace": owner.namespace,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner_reference(controller)],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        return self.apply({**pod, "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}})

    def end_pod(
        self, ref: Ref, code: int, result: StageResult | None = None, *, reason: str = "", at: datetime | None = None
    ) -> None:
        """The container of a pod ends; a pod that was being deleted is gone then."""
        if "deletionTimestamp" in self.objects[ref]["metadata"]:
            del self.objects[ref]
            return
        terminated: Json = {"exitCode": code, "finishedAt": (at or datetime(2026, 1, 1, tzinfo=UTC)).isoformat()}
        if reason:
            terminated["reason"] = reason
        if result is not None:
            terminated["message"] = result.message_bytes().decode()
        phase = "Failed" if code else "Succeeded"
        self.set_status(ref, phase=phase, containerStatuses=[{"state": {"terminated": terminated}}])

    def versions(self) -> dict[Ref, str]:
        """The resource version of everything."""
        return {ref: obj["metadata"]["resourceVersion"] for ref, obj in self.objects.items()}

    def of_kind(self, kind: str) -> list[Ref]:
        return [ref for ref in self.objects if ref.kind == kind]

    def owned_by(self, owner: Json) -> list[Ref]:
        uid = owner["metadata"]["uid"]
        return [
            ref
            for ref, obj in self.objects.items()
            if any(reference["uid"] == uid for reference in obj["metadata"].get("ownerReferences", []))
        ]

    def _phase(self, ref: Ref) -> str:
        return str(self.objects[ref].get("status", {}).get("phase", "Pending"))

    def _given(self, obj: Json) -> Json:
        """An object on its way in or out; whoever has it may change it."""
        return copy.deepcopy(obj)

    def _store(self, obj: Json) -> None:
        stored = self._given(obj)
        metadata = stored["metadata"]
        if "uid" not in metadata:
            metadata["uid"] = f"uid-{next(self._uids)}"
        metadata.setdefault("generation", 1)
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[Ref.of(stored)] = stored


class _Write:
    """Counts a write and lets a test interrupt it on either side."""

    def __init__(self, cluster: MemoryCluster, what: str) -> None:
        self._cluster = cluster
        self._number = cluster.tries
        cluster.tries += 1
        self._what = what
        cluster.before_write(self._number)

    def __enter__(self) -> None:
        return None

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._cluster.writes.append(self._what)
            self._cluster.after_write(self._number)


def owner_reference(controller: Json) -> Json:
    metadata = controller["metadata"]
    return {
        "apiVersion": controller["apiVersion"],
        "kind": controller["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def conditions(*holding: str) -> list[Json]:
    """Conditions that hold, as a controller writes them."""
    return [{"type": kind, "status": "True"} for kind in holding]


def pod_templates(obj: Any) -> Iterator[Json]:
    """Every pod template inside an object."""
    if isinstance(obj, dict):
        if "template" in obj and "spec" in obj["template"]:
            yield obj["template"]
        for value in obj.values():
            yield from pod_templates(value)
    elif isinstance(obj, list):
        for value in obj:
            yield from pod_templates(value)
