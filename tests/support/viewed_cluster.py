"""A cluster in memory of which the operator may see an earlier state, while its writes meet the present one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.errors import Conflict
from posttrain_operator.observe.facts import CHILD_KINDS
from support.memory_cluster import ENDED, MemoryCluster

CHILDREN: Final = frozenset({kind for _, kind in CHILD_KINDS} | {"Pod"})
_READ: Final = CHILDREN | set(KINDS) | {"Workload", "LocalQueue", "ResourceQuota"}


class ViewedCluster(MemoryCluster):
    """``MemoryCluster`` with a clock, with garbage that is collected later, and with views that lag behind.

    The operator sees its own writes at once, as its cache does. Its view is of the past in one of two ways: some kinds
    are seen late, as when one watch is slow, and what is asked for again is the truth; or everything is of one moment
    and asking again is no help, as when the API server answers from the past, or a process that was stopped for a while
    goes on.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__()
        self.clock = clock
        self.refusal: Callable[[Json], Exception | None] = lambda _: None
        """Why a child may not be created, at present."""
        self.on_create: Callable[[Json], None] = lambda _: None
        """Called before a child is created."""
        self.on_delete: Callable[[Json], None] = lambda _: None
        """Called before an object is deleted by the operator, with the object."""
        self.on_status: Callable[[Json, Json], None] = lambda *_: None
        """Called before a status is stored, with the object as it is and its new status."""
        self._earlier: dict[str, dict[Ref, Json]] = {}
        self._asking_helps = True

    # Views.

    def lag(self, kinds: Iterable[str]) -> None:
        """From now on the operator sees these kinds as they are at this moment."""
        for kind in kinds:
            self._earlier[kind] = {ref: obj for ref, obj in self.objects.items() if ref.kind == kind}

    def catch_up(self) -> None:
        """The operator sees what there is."""
        self._earlier.clear()

    @property
    def lags(self) -> bool:
        return bool(self._earlier)

    @contextmanager
    def as_of(self, moment: Mapping[Ref, Json]) -> Iterator[None]:
        """An operator reads everything from the past, see ``objects``, whatever it asks for again."""
        past = {kind: {ref: obj for ref, obj in moment.items() if ref.kind == kind} for kind in _READ}
        kept, self._earlier = self._earlier, past
        self._asking_helps = False
        try:
            yield
        finally:
            self._earlier, self._asking_helps = kept, True

    async def get(self, ref: Ref) -> Json | None:
        return self._seen(ref.kind).get(ref)

    async def read(self, ref: Ref) -> Json | None:
        if self._asking_helps:
            self._note(ref)
        return await self.get(ref)

    async def refresh(self, namespace: str, wanted: Mapping[str, str]) -> None:
        self.refreshes += 1
        if not self._asking_helps:
            return
        for ref in {*self.objects, *(ref for seen in self._earlier.values() for ref in seen)}:
            obj = self.objects.get(ref) or self._seen(ref.kind)[ref]
            if ref.kind in CHILDREN and ref.namespace == namespace and wanted.items() <= _labels(obj).items():
                self._note(ref)

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        return [
            obj
            for ref, obj in self._seen(kind).items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and namespace in ("", ref.namespace)
            and wanted.items() <= _labels(obj).items()
        ]

    def _seen(self, kind: str) -> dict[Ref, Json]:
        return self._earlier.get(kind, self.objects)

    def _answered(self, stored: Json) -> Json:
        if (seen := self._earlier.get(stored["kind"])) is not None:
            seen[Ref.of(stored)] = stored
        return stored

    def _note(self, ref: Ref) -> None:
        """The operator sees one object as it is."""
        if (seen := self._earlier.get(ref.kind)) is None:
            return
        if ref in self.objects:
            seen[ref] = self.objects[ref]
        else:
            seen.pop(ref, None)

    # Writes of the operator.

    async def create(self, obj: Json) -> Json:
        self.on_create(obj)
        if (refusal := self.refusal(obj)) is not None:
            raise refusal
        return self._answered(await super().create(obj))

    async def delete(self, ref: Ref, *, uid: str) -> None:
        present = self.objects.get(ref)
        if present is not None and present["metadata"]["uid"] == uid:
            self.on_delete(present)
        await super().delete(ref, uid=uid)
        self._note(ref)

    async def patch_status(self, obj: Json, status: Json) -> Json:
        try:
            return self._answered(await super().patch_status(obj, status))
        except Conflict:
            await self.read(Ref.of(obj))
            raise

    # The API server and the garbage collector.

    def remove(self, ref: Ref) -> None:
        """Deletes an object; its dependents are left to the garbage collector."""
        obj = self.objects[ref]
        if ref.kind == "Pod" and obj["status"]["phase"] not in ENDED and obj["status"].get("startTime"):
            self.stop(ref)
        else:
            del self.objects[ref]

    def stop(self, ref: Ref) -> None:
        """Asks for the end of a pod, which has its grace."""
        obj = self.objects[ref]
        if "deletionTimestamp" not in obj["metadata"]:
            self._store({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": stamp(self.clock())}})

    def collect_garbage(self) -> bool:
        """Deletes what belongs to nobody any more; whether there was any."""
        uids = {obj["metadata"]["uid"] for obj in self.objects.values()}
        garbage = [ref for ref, obj in self.objects.items() if not _owners(obj) <= uids and not _stops(obj)]
        for ref in garbage:
            self.remove(ref)
        return bool(garbage)

    def put(self, ref: Ref, **changed: Json) -> None:
        """Somebody writes parts of an object: ``spec``, ``metadata`` or ``status``."""
        obj = self.objects[ref]
        new = {**obj, **{part: {**obj.get(part, {}), **told} for part, told in changed.items()}}
        if new != obj:
            self._store(new)

    def _given(self, obj: Json) -> Json:
        """Nobody changes what he gets, as with the operator's cache; only the metadata are completed here."""
        return {**obj, "metadata": {**obj["metadata"]}}

    def _store(self, obj: Json) -> None:
        made = {"creationTimestamp": stamp(self.clock())}
        super()._store({**obj, "metadata": {**made, **obj["metadata"]}})


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _labels(obj: Json) -> dict[str, str]:
    found: dict[str, str] = obj["metadata"].get("labels", {})
    return found


def _owners(obj: Json) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences", [])}


def _stops(obj: Json) -> bool:
    return "deletionTimestamp" in obj["metadata"]
