"""The cluster behind the API server: the operator's ``Cluster``.

Reads come from the cache, which events, lists and our own writes keep; the answer to a write is in the cache before the
caller goes on. What an answer means to the loop is decided here.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from posttrain_contract.base import Problem
from posttrain_contract.progress import Progress

from posttrain_operator import labels
from posttrain_operator.cache import Cache, version_of
from posttrain_operator.cluster import Event, Json, Ref
from posttrain_operator.errors import ApiUnavailable, Conflict, InvalidSpec, Waiting
from posttrain_operator.labels import Reason
from posttrain_operator.lists import refresh
from posttrain_operator.rest import CONFLICT, NOT_FOUND, RefusedError, Rest, unexpected
from posttrain_operator.telemetry import Telemetry
from posttrain_operator.watched import APIS, CHILDREN, Api

_MANAGED: Final = f"fieldManager={labels.MANAGER}"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KubeCluster:
    """Implements ``posttrain_operator.cluster.Cluster``."""

    rest: Rest
    cache: Cache
    telemetry: Telemetry
    domain: str = "svc"
    """What follows SERVICE.NAMESPACE in a server's name."""
    found: Callable[[Json], None] = lambda _: None
    """Called with what a pass found out on its way: it is in the cache, so that no event tells it as new."""
    wrote: Callable[[Json, Json], None] = lambda _before, _after: None
    """Called with an object before and after a write of its status, of which no event tells either."""

    async def get(self, ref: Ref) -> Json | None:
        """See ``Cluster.get``."""
        return self.cache.get(ref)

    async def read(self, ref: Ref) -> Json | None:
        """See ``Cluster.read``."""
        try:
            obj = await self.rest.get(_path(ref))
        except RefusedError as refused:
            if refused.code != NOT_FOUND:
                raise unexpected(refused) from refused
            self._forget(ref)
            return None
        if self.cache.put(obj):
            self.found(obj)
        return obj

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        """See ``Cluster.list_objects``."""
        return self.cache.select(api_version, kind, namespace, wanted)

    async def refresh(self, namespace: str, wanted: Mapping[str, str]) -> None:
        """See ``Cluster.refresh``."""
        for api in CHILDREN:
            await refresh(self.rest, self.cache, api, namespace=namespace, wanted=wanted, changed=self.found)

    async def create(self, obj: Json) -> Json:
        """See ``Cluster.create``."""
        ref = Ref.of(obj)
        try:
            metadata = await self.rest.post(f"{_api(ref).path(ref.namespace)}?{_MANAGED}", obj)
        except RefusedError as refused:
            raise _refused(ref, refused) from refused
        stored = {**obj, "metadata": metadata}
        self.cache.put(stored, assumed=True)
        return stored

    async def repair(self, obj: Json) -> None:
        """See ``Cluster.repair``."""
        ref = Ref.of(obj)
        try:
            metadata = await self.rest.apply(f"{_path(ref)}?{_MANAGED}&force=true", obj)
        except RefusedError as refused:
            raise unexpected(refused) from refused
        self.cache.put({**obj, "metadata": metadata}, assumed=True)

    async def delete(self, ref: Ref, *, uid: str) -> None:
        """See ``Cluster.delete``. A foreign object that has taken the name meanwhile stays."""
        try:
            gone = await self.rest.delete(_path(ref), uid=uid)
        except RefusedError as refused:
            if refused.code not in (CONFLICT, NOT_FOUND):
                raise unexpected(refused) from refused
            now = await self.read(ref)
            if now is not None and now["metadata"]["uid"] == uid:
                raise Conflict(refused.message) from refused
            return
        if gone.get("kind") == ref.kind and gone["metadata"].get("deletionTimestamp"):
            self.cache.put(gone)  # it ends in its own time
        else:
            self._forget(ref, uid)

    async def patch_status(self, obj: Json, status: Json) -> Json:
        """See ``Cluster.patch_status``."""
        ref = Ref.of(obj)
        patch = {
            "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]},
            "status": merge_patch(obj.get("status") or {}, status),
        }
        try:
            metadata = await self.rest.patch(f"{_path(ref)}/status?{_MANAGED}", patch)
        except RefusedError as refused:
            if refused.code not in (NOT_FOUND, CONFLICT):
                raise unexpected(refused) from refused
            found = await self.read(ref)  # so that the next pass sees what was missed
            if found is None or not _is_as_written(found, obj, status):
                raise Conflict(refused.message) from refused
            metadata = found["metadata"]  # it was written, and the answer was lost
        stored = {**obj, "metadata": metadata, "status": status}
        self.cache.put(stored)
        if version_of(stored) != version_of(obj):  # whether or not an event was faster than the answer
            self.wrote(obj, stored)
        return stored

    async def tell(self, obj: Json, event: Event) -> None:
        """See ``Cluster.tell``."""
        ref, now = Ref.of(obj), self.rest.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        involved = {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": obj["metadata"]["uid"],
        }
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{ref.name}.{event.name}", "namespace": ref.namespace},
            "involvedObject": involved,
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": labels.MANAGER},
            "reportingComponent": labels.MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.rest.post(_api(Ref("v1", "Event", "", "")).path(ref.namespace), body)
        except RefusedError as refused:
            if refused.code != CONFLICT:
                _log.warning("event for %s not told: %s", ref, refused.message)
        except ApiUnavailable as unavailable:
            _log.warning("event for %s not told: %s", ref, unavailable)

    async def progress(self, pod: Json) -> Progress | None:
        """See ``Cluster.progress``: the newest answer; asks again in the background."""
        return self.telemetry.latest(pod)

    def server_address(self, *, namespace: str, service: str, pod: str) -> str:
        """See ``Cluster.server_address``."""
        return f"{pod}.{service}.{namespace}.{self.domain}"

    def _forget(self, ref: Ref, uid: str | None = None) -> None:
        seen = self.cache.get(ref)
        if seen is not None and uid in (None, seen["metadata"]["uid"]):
            self.cache.forget(ref)
            self.found(seen)


def merge_patch(before: Json, after: Json) -> Json:
    """The JSON merge patch (RFC 7386) that leads from one object to another; lists are replaced as a whole."""
    patch: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := merge_patch(old, value):
                patch[key] = inner
        elif old != value:
            patch[key] = value
    return patch


def _is_as_written(found: Json, obj: Json, status: Json) -> bool:
    """Whether this is the same object, of the same generation, with this status."""
    same = all(found["metadata"].get(key) == obj["metadata"].get(key) for key in ("uid", "generation"))
    return same and (found.get("status") or {}) == status


def _api(ref: Ref) -> Api:
    return APIS[ref.api_version, ref.kind]


def _path(ref: Ref) -> str:
    return _api(ref).path(ref.namespace, ref.name)


def _refused(ref: Ref, refused: RefusedError) -> Exception:
    """What a refusal to create a child means to the loop."""
    if refused.code == CONFLICT:
        return Conflict(refused.message)
    if refused.code in (400, 413, 422):
        return InvalidSpec([Problem(("spec", "run"), refused.message)])
    if refused.code == NOT_FOUND:
        message = f"the cluster has no {ref.api_version} {ref.kind}; install its controller and custom resources"
        return Waiting(Reason.KIND_MISSING, message, stalled=True)
    passes = "exceeded quota" in refused.message  # the preflight was overtaken; all else wants a person
    return Waiting(Reason.REFUSED, f"the cluster refuses {ref}: {refused.message}", stalled=not passes)
