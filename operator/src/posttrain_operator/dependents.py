"""Who reads from whom: so that a change of an object brings its readers a pass."""

from collections.abc import Iterator
from typing import Any

from posttrain_operator.api.resources import KINDS, upstream_ref
from posttrain_operator.cluster import Json, Ref


class Dependents:
    """The readers of each object. What an object reads from never changes while it exists."""

    def __init__(self) -> None:
        self._readers: dict[Ref, set[Ref]] = {}
        self._read: dict[Ref, tuple[str, tuple[Ref, ...]]] = {}
        """uid of each reader and what it reads from."""

    def seen(self, obj: Json) -> None:
        """Takes note of what an object reads from."""
        ref, uid = Ref.of(obj), obj["metadata"]["uid"]
        if (known := self._read.get(ref)) is not None:
            if known[0] == uid:
                return
            self.gone(ref)
        upstreams = tuple(set(_upstreams(obj.get("spec"), ref.namespace)))
        self._read[ref] = (uid, upstreams)
        for upstream in upstreams:
            self._readers.setdefault(upstream, set()).add(ref)

    def gone(self, ref: Ref) -> None:
        """Forgets what an object read from."""
        for upstream in self._read.pop(ref, ("", ()))[1]:
            readers = self._readers[upstream]
            readers.discard(ref)
            if not readers:
                del self._readers[upstream]

    def of(self, ref: Ref) -> tuple[Ref, ...]:
        """The readers of an object."""
        return tuple(self._readers.get(ref, ()))


def _upstreams(part: Any, namespace: str) -> Iterator[Ref]:
    """Everything that a ``from`` names, without the cost of parsing the whole."""
    if isinstance(part, dict):
        named = part.get("from")
        if isinstance(named, str) and named.partition("/")[0] in KINDS and "/" in named:
            yield upstream_ref(named, namespace)
        for value in part.values():
            yield from _upstreams(value, namespace)
    elif isinstance(part, list):
        for item in part:
            yield from _upstreams(item, namespace)
