"""Objects that survive a run, and the question whether an object is still the same.

On a cluster the API server keeps objects and refuses to change what they say should happen. Here a manifest is a file
that anyone may edit, so an object whose specification or inputs changed becomes a new object with a new run folder.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from posttrain_contract import layout
from posttrain_contract.artifact import Manifest
from posttrain_contract.hub import SCHEME
from posttrain_contract.stage import canonical
from posttrain_operator.api.resources import read_spec, upstream_refs
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json, Ref
from pydantic import ValidationError

from posttrain.local.workspace import LocalOptions, run_folder

Say = Callable[[str], None]


class ObjectStore:
    """One JSON file an object; written whole or not at all."""

    def __init__(self, options: LocalOptions) -> None:
        self._folder = options.objects
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, ref: Ref) -> Json | None:
        """The object as it was saved last, or None."""
        try:
            stored: Json = json.loads(self._path(ref).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return stored

    def write(self, obj: Json) -> None:
        """Saves an object."""
        path = self._path(Ref.of(obj))
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(obj, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)

    def _path(self, ref: Ref) -> Path:
        return self._folder / f"{ref.namespace}.{ref.kind.lower()}.{ref.name}.json"


def admit(manifests: Sequence[Json], store: ObjectStore, options: LocalOptions, say: Say) -> list[Json]:
    """The objects of a run: earlier ones go on where they were, changed ones begin anew; in order of dependency."""
    admitted: dict[Ref, Json] = {}
    for manifest in _in_order(manifests):
        obj = _admit(manifest, admitted, store, options, say)
        store.write(obj)
        admitted[Ref.of(obj)] = obj
    return list(admitted.values())


def _admit(manifest: Json, admitted: Mapping[Ref, Json], store: ObjectStore, options: LocalOptions, say: Say) -> Json:
    ref = Ref.of(manifest)
    fingerprint = _fingerprint(manifest, admitted, options)
    earlier = store.read(ref)
    if earlier is None or earlier.get("fingerprint") != fingerprint:
        if earlier is not None:
            say(f"{ref}: its specification or an input changed, so it begins anew")
        return _object(manifest, uid=str(uuid4()), fingerprint=fingerprint)
    obj = _object(manifest, uid=earlier["metadata"]["uid"], fingerprint=fingerprint)
    status = read_status(earlier.get("status"))
    if status.holds("Failed"):
        say(f"{ref}: it failed before and is tried again")
    elif status.holds("Succeeded") and (what := _damage(obj, options)) is not None:
        say(f"{ref}: {what}, so it is made again")
    else:
        if status.holds("Succeeded"):
            say(f"{ref}: nothing to do, its artifact is published")
        obj["status"] = earlier.get("status", {})
    return obj


def _object(manifest: Json, *, uid: str, fingerprint: str) -> Json:
    metadata = {**manifest["metadata"], "uid": uid, "generation": 1}
    return {**manifest, "metadata": metadata, "status": {}, "fingerprint": fingerprint}


def _fingerprint(manifest: Json, admitted: Mapping[Ref, Json], options: LocalOptions) -> str:
    """A digest of what the object says should happen and of the state of its inputs (names, sizes, times)."""
    what = {key: value for key, value in manifest["spec"].items() if key != "run"}
    upstream = {
        field: admitted[ref]["metadata"]["uid"] for field, ref in upstream_refs(manifest).items() if ref in admitted
    }
    files = {uri: list(_state(path)) if path is not None else [] for uri, path in _files(manifest, options)}
    text = canonical({"spec": what, "upstream": upstream, "files": files, "hub": options.hub_endpoint})
    return hashlib.sha256(text.encode()).hexdigest()


def _files(manifest: Json, options: LocalOptions) -> Iterator[tuple[str, Path | None]]:
    """The inputs by URI, and where those lie that are on this machine."""
    _, spec, _ = read_spec(manifest)
    for item in spec.inputs().values() if spec is not None else ():
        if item.uri is not None:
            yield item.uri, None if item.uri.startswith(SCHEME) else options.path(item.uri)


def _state(path: Path) -> Iterator[tuple[str, int, int]]:
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in paths:
        if file.is_file():
            stat = file.stat()
            yield str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns


def _damage(obj: Json, options: LocalOptions) -> str | None:
    """What is wrong with the artifact of a finished object, by names and sizes; hashes are checked by its readers."""
    folder = run_folder(obj, options)
    try:
        manifest = Manifest.model_validate_json((folder / layout.MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return "its artifact is gone"
    for entry in manifest.files:
        path = folder / layout.ARTIFACT / entry.path
        if not path.is_file() or path.stat().st_size != entry.size:
            return f"{entry.path} of its artifact is missing or damaged"
    return None


def _in_order(manifests: Sequence[Json]) -> list[Json]:
    """The manifests with every object after those that it reads; those of a cycle come last, for the loop to refuse."""
    left = [_with_namespace(manifest) for manifest in manifests]
    names = {Ref.of(manifest) for manifest in left}
    ordered: list[Json] = []
    while left:
        placed = {Ref.of(manifest) for manifest in ordered}
        free = [m for m in left if not (set(upstream_refs(m).values()) & names) - placed]
        if not free:
            return [*ordered, *left]
        ordered += free
        left = [manifest for manifest in left if manifest not in free]
    return ordered


def _with_namespace(manifest: Json) -> Json:
    return {**manifest, "metadata": {"namespace": "default", **manifest["metadata"]}}
