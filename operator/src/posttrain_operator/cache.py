"""What was seen of the cluster: fed by events, by lists and by the answers to our own writes, in any order.

A later resource version wins, whichever way it came; what is gone is remembered for a while, so that a late event does
not bring it back.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from posttrain_operator import labels
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.watched import slim

_TOMBSTONES: Final = 20_000
Place = tuple[str, str, str]
"""(API version, kind, namespace)."""
Family = tuple[str, str, str]
"""(namespace, kind, name) of the object whose children these are."""


class Cache:
    """Objects by reference, and the children of each object. What it gives out must not be changed."""

    def __init__(self) -> None:
        self._objects: dict[Ref, Json] = {}
        self._kinds: dict[Place, dict[Ref, None]] = {}
        self._families: dict[Family, dict[Ref, None]] = {}
        self._gone: OrderedDict[Ref, int] = OrderedDict()
        self._assumed: set[Ref] = set()
        """Objects that nobody has told of yet but the answer to our own creation."""

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, ref: Ref) -> Json | None:
        """The object as it was seen last."""
        return self._objects.get(ref)

    def select(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        """The objects of a kind that carry all the labels; namespace "" means all."""
        family = (namespace, wanted.get(labels.KIND, ""), wanted.get(labels.NAME, ""))
        refs = self._families.get(family, {}) if all(family) else self._of_kind(api_version, kind, namespace)
        return [
            self._objects[ref]
            for ref in refs
            if ref.kind == kind
            and ref.api_version == api_version
            and namespace in ("", ref.namespace)
            and wanted.items() <= (self._objects[ref]["metadata"].get("labels") or {}).items()
        ]

    def refs(self, api_version: str, kind: str) -> Iterator[Ref]:
        """Every object of a kind."""
        yield from tuple(self._of_kind(api_version, kind, ""))

    def _of_kind(self, api_version: str, kind: str, namespace: str) -> Iterable[Ref]:
        """The objects of a kind; those of one namespace cost nothing of the others."""
        if namespace:
            return self._kinds.get((api_version, kind, namespace), ())
        return chain.from_iterable(refs for place, refs in self._kinds.items() if place[:2] == (api_version, kind))

    def put(self, obj: Json, *, assumed: bool = False) -> bool:
        """Takes an object in; returns whether it says anything new.

        ``assumed``: it is as we sent it, and the cluster may have changed it on the way in.
        """
        ref, version = Ref.of(obj), version_of(obj)
        old = self._objects.get(ref)
        if old is not None and version_of(old) >= version and not self._completes(ref, version, assumed=assumed):
            return False
        if self._gone.get(ref, -1) >= version:
            return False
        self._drop(ref)
        self._gone.pop(ref, None)
        new = self._objects[ref] = slim(obj)
        if assumed:
            self._assumed.add(ref)
        self._kinds.setdefault(_place(ref), {})[ref] = None
        if (family := family_of(obj)) is not None:
            self._families.setdefault(family, {})[ref] = None
        return old is None or not _says_the_same(old, new)

    def remove(self, ref: Ref, version: int) -> bool:
        """Forgets an object that is gone as of a resource version; returns whether that is new."""
        old = self._objects.get(ref)
        if old is not None and version_of(old) > version:
            return False  # it has been made again since
        self._gone[ref] = max(version, self._gone.pop(ref, -1))
        while len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)
        return self._drop(ref)

    def forget(self, ref: Ref) -> None:
        """Drops an object of which the cluster has just said that it is gone, but not since when."""
        self._drop(ref)

    def _completes(self, ref: Ref, version: int, *, assumed: bool) -> bool:
        """Whether this tells for the first time what an object of ours became."""
        return not assumed and ref in self._assumed and version_of(self._objects[ref]) == version

    def _drop(self, ref: Ref) -> bool:
        old = self._objects.pop(ref, None)
        if old is None:
            return False
        self._assumed.discard(ref)
        self._kinds[_place(ref)].pop(ref, None)
        if (family := family_of(old)) is not None and (members := self._families.get(family)) is not None:
            members.pop(ref, None)
            if not members:
                del self._families[family]
        return True


def _place(ref: Ref) -> Place:
    return ref.api_version, ref.kind, ref.namespace


def version_of(obj: Json) -> int:
    """The resource version as a number: since Kubernetes 1.35 they may be compared."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0


def _says_the_same(one: Json, other: Json) -> bool:
    """Whether nothing differs that a plan reads: so a storm of annotations brings nobody a pass."""
    if {**one["metadata"], "resourceVersion": ""} != {**other["metadata"], "resourceVersion": ""}:
        return False
    return all((one.get(part) or {}) == (other.get(part) or {}) for part in (one.keys() | other.keys()) - {"metadata"})


def family_of(obj: Json) -> Family | None:
    """The object that a child or pod belongs to, by its labels."""
    metadata = obj["metadata"]
    own = metadata.get("labels") or {}
    kind, name = own.get(labels.KIND), own.get(labels.NAME)
    return (metadata["namespace"], kind, name) if kind and name else None
