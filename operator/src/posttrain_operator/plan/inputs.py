"""Inputs: from what the user named to what a pod mounts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from posttrain_contract import layout
from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Problem
from posttrain_contract.inputs import PUBLISHES, Input
from posttrain_contract.stage import ResolvedInput

from posttrain_operator.api.resources import Resource
from posttrain_operator.api.status import InputStatus
from posttrain_operator.cluster import Json
from posttrain_operator.errors import InvalidSpec, Waiting
from posttrain_operator.labels import Reason
from posttrain_operator.observe.facts import Upstream
from posttrain_operator.settings import Settings

_NO_FILES: Final = (
    "file:// works only with `posttrain run`; on a cluster put the data on a claim and use pvc://CLAIM/PATH"
)


@dataclass(frozen=True)
class Volume:
    """A source of bytes and where a pod sees it, relative to the mount root."""

    name: str
    source: Json
    mount: str


@dataclass(frozen=True)
class Inputs:
    """The resolved inputs of one attempt and the volumes they need beside the store."""

    resolved: dict[str, ResolvedInput]
    volumes: tuple[Volume, ...]


def resolve(
    resource: Resource,
    upstreams: Mapping[str, Upstream],
    settings: Settings,
    *,
    pinned: Mapping[str, InputStatus] = MappingProxyType({}),
) -> Inputs:
    """Resolves every input; ``pinned`` are those of the first attempt, because a retry reads the same bytes.

    Raises ``InvalidSpec`` for references that can never work and ``Waiting`` while an artifact is missing.
    """
    resolved: dict[str, ResolvedInput] = {}
    volumes: dict[str, Volume] = {}
    for field, item in resource.inputs.items():
        first = pinned.get(field)
        uri, digest = (first.uri, first.digest) if first else _locate(resource, field, item, upstreams)
        if uri.startswith("file://") and not settings.file_uris:
            raise InvalidSpec([Problem(("spec", *field.split("."), "uri"), _NO_FILES)])
        path, volume = _mount(uri, store_claim=resource.run.storage.claim, namespace=resource.ref.namespace)
        resolved[field] = ResolvedInput(uri=uri, path=path, digest=digest)
        if volume is not None:
            volumes[volume.name] = volume
    return Inputs(resolved, tuple(volumes.values()))


def _locate(resource: Resource, field: str, item: Input, upstreams: Mapping[str, Upstream]) -> tuple[str, str | None]:
    """The URI of an input, and the digest when it is an artifact."""
    if item.from_ is not None:
        artifact_of = upstreams[field]
        _check_upstream(field, artifact_of, needed=resource.spec.needs.get(field))
        assert artifact_of.artifact is not None  # noqa: S101 - _check_upstream raised otherwise
        return artifact_of.artifact.uri, artifact_of.artifact.digest
    assert item.uri is not None  # noqa: S101 - exactly one of from and uri, by the contract
    return item.uri, None


def _check_upstream(field: str, upstream: Upstream, *, needed: ArtifactType | None) -> None:
    path = ("spec", *field.split("."), "from")
    given = PUBLISHES.get(upstream.ref.kind)
    if needed is not None and given != needed:
        raise InvalidSpec([Problem(path, f"must be a {needed}, but {upstream.ref} publishes a {given}")])
    if upstream.cycle:
        raise InvalidSpec([Problem(path, f"reads from itself: {' -> '.join(upstream.cycle)}")])
    if not upstream.exists:
        message = f"{upstream.ref} does not exist; apply it, or correct spec.{field}.from"
        raise Waiting(Reason.WAITING_FOR_ARTIFACT, message)
    if upstream.failure is not None:
        raise Waiting(Reason.INPUT_FAILED, f"{upstream.ref} failed: {upstream.failure}", stalled=True)
    if upstream.artifact is None:
        raise Waiting(Reason.WAITING_FOR_ARTIFACT, f"{upstream.ref} is {upstream.phase}")


def _mount(uri: str, *, store_claim: str, namespace: str) -> tuple[str, Volume | None]:
    """The path of a URI below the mount root, and the volume that it needs unless the store has it."""
    scheme, rest = uri.split("://", 1)
    if scheme == "hf":
        return f"{layout.STORE_MOUNT}/{namespace}/{layout.HUB}", None
    if scheme == "file":
        path = PurePosixPath(rest)
        name = _volume_name(f"file{path}")
        mount = f"inputs/{name}/{path.name}"
        return mount, Volume(name, {"hostPath": {"path": str(path)}}, mount)
    claim, path_in_claim = rest.split("/", 1)
    if claim == store_claim:
        return f"{layout.STORE_MOUNT}/{path_in_claim}", None
    mount = f"inputs/{claim}"
    source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return f"{mount}/{path_in_claim}", Volume(_volume_name(claim), source, mount)


def _volume_name(text: str) -> str:
    """A DNS label that is unique for a text."""
    return f"input-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
