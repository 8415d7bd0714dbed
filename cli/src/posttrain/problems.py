"""What is wrong with one manifest, in sentences that say what was found and what is allowed."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain_contract.base import Problem
from posttrain_operator.api.resources import KINDS, read_spec
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import API_VERSION, GROUP

from posttrain.documents import Document, Finding, Path, field_name
from posttrain.schema import allowed_fields, description, elsewhere, nearest, suggestion

DEFAULT_NAMESPACE = "default"

_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = (
    *("name", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid", "generation"),
    *("resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"),
    "selfLink",
)
_SIMILAR_GROUP = 0.8
"""How alike another API group must be to be taken for a misspelling of ours."""
_LONG_PATTERN = re.compile(r" '.{100,}'(?=, found )")
"""A pattern that explains nothing to a reader."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Manifest:
    """A document that is an object of one of the four kinds."""

    document: Document

    @property
    def raw(self) -> Json:
        """The object as it was written."""
        raw: Json = self.document.value
        return raw

    @property
    def ref(self) -> Ref | None:
        """The object's name, or None when it has none that can be used."""
        metadata = self.raw.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            return None
        namespace = metadata.get("namespace") or DEFAULT_NAMESPACE
        return Ref(API_VERSION, self.raw["kind"], str(namespace), metadata["name"])

    def finding(self, path: Path, message: str) -> Finding:
        """A finding about a field of this manifest."""
        return Finding(self.document.position(path), message, field_name(path))

    def as_applied(self) -> Json:
        """The object with its namespace and without a status; the same as written where it is broken."""
        if self.ref is None:
            return self.raw
        metadata = {**self.raw["metadata"], "namespace": self.ref.namespace}
        return {**{key: value for key, value in self.raw.items() if key != "status"}, "metadata": metadata}


def foreign_kind(value: Any) -> str | None:
    """The kind of an object that plainly belongs to somebody else, else None."""
    if not isinstance(value, Mapping):
        return None
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return None
    group = version.rpartition("/")[0]
    misspelt = nearest(group, [GROUP], similarity=_SIMILAR_GROUP) is not None
    if misspelt or (kind in KINDS and not group):
        return None
    return f"{version} {kind}"


def unrecognized(document: Document) -> Iterator[Finding]:
    """Why a document that should be an object of ours is none."""
    value = document.value
    if not isinstance(value, Mapping):
        message = f"expected an object with apiVersion, kind, metadata and spec, found {_type_name(value)}"
        yield Finding(document.position(()), message)
        return
    for field, options in (("apiVersion", [API_VERSION]), ("kind", list(KINDS))):
        found = value.get(field)
        if field not in value:
            message = f"required field is missing; allowed: {', '.join(options)}"
            yield Finding(document.position((field,)), message, field)
        elif found not in options:
            message = f"unknown {field} {found!r}; allowed: {', '.join(options)}{suggestion(str(found), options)}"
            yield Finding(document.position((field,)), message, field)


def check_manifest(manifest: Manifest) -> Iterator[Finding]:
    """Everything that is wrong with one object by itself, fields from the top down."""
    for name in manifest.raw:
        if name not in _TOP_LEVEL:
            yield manifest.finding((name,), _unknown(name, _TOP_LEVEL))
    yield from _check_metadata(manifest)
    yield from _check_spec(manifest)


def _check_metadata(manifest: Manifest) -> Iterator[Finding]:
    metadata = manifest.raw.get("metadata")
    if not isinstance(metadata, dict):
        found = f", found {_type_name(metadata)}" if "metadata" in manifest.raw else ""
        yield manifest.finding(("metadata",), f"expected a mapping with at least a name{found}")
        return
    for field in metadata:
        if field not in _METADATA:
            yield manifest.finding(("metadata", field), _unknown(field, _METADATA))
    if "namespace" in metadata and not _is_namespace(metadata["namespace"]):
        message = "must be 1 to 63 of a-z, 0-9 and -, and neither start nor end with -"
        yield manifest.finding(("metadata", "namespace"), f"{message}, found {metadata['namespace']!r}")
    for field in ("labels", "annotations"):
        yield from _check_texts(manifest, field, metadata.get(field) or {})


def _check_texts(manifest: Manifest, field: str, texts: Any) -> Iterator[Finding]:
    if not isinstance(texts, dict):
        yield manifest.finding(("metadata", field), f"expected a mapping of texts, found {_type_name(texts)}")
        return
    for key, text in texts.items():
        if not isinstance(text, str):
            message = f"must be text; put {text!r} in quotation marks" if text is not None else "must be text"
            yield manifest.finding(("metadata", field, key), message)


def _is_namespace(name: Any) -> bool:
    return isinstance(name, str) and _NAMESPACE.fullmatch(name) is not None


def _check_spec(manifest: Manifest) -> Iterator[Finding]:
    """What the operator's own reading of the object says of its name and of ``spec``."""
    metadata = manifest.raw.get("metadata")
    named = metadata if isinstance(metadata, dict) else {"name": "unnamed"}
    problems, _, _ = read_spec({**manifest.raw, "metadata": named})
    for problem in problems:
        if problem.path == ("metadata", "name"):
            yield manifest.finding(problem.path, _explain_name(named, problem))
        elif not _is_reference_pattern(problem):
            yield manifest.finding(_without_markers(problem.path), _explain(manifest.raw["kind"], problem))


def _explain_name(metadata: Mapping[str, Any], problem: Problem) -> str:
    name = metadata.get("name")
    if name is not None and not isinstance(name, str):
        return f"must be text, found {_type_name(name)}"
    rule = problem.message.removeprefix("metadata.name ")
    return rule if name is None else f"{rule}, found {name!r}"


def _is_reference_pattern(problem: Problem) -> bool:
    """Whether the problem is the spelling of a ``from``; ``references`` says more about it."""
    return problem.kind == "string_pattern_mismatch" and problem.path[-1] == "from"


def _without_markers(path: Path) -> Path:
    """The path without pydantic's mark for the key of a mapping."""
    return path[:-1] if path[-1] == "[key]" else path


def _explain(kind: str, problem: Problem) -> str:
    """The problem with what is allowed, as far as the contract knows it."""
    path = problem.path
    meaning = description(kind, path)
    match problem.kind:
        case "extra_forbidden":
            return _unknown_field(kind, path)
        case "missing" if meaning:
            return f"{problem.message}: {meaning}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping of fields, found {problem.message.rpartition(', found ')[2]}"
        case "tuple_type":
            return f"must be a list, found {problem.message.rpartition(', found ')[2]}"
        case "string_pattern_mismatch" if meaning:
            return f"{_LONG_PATTERN.sub('', problem.message)}; it means: {meaning}"
        case "literal_error":
            found = problem.message.rpartition(", found ")[2].strip("'\"")
            return f"{problem.message}{suggestion(found, _literals(problem.message))}"
        case _:
            return problem.message


def _literals(message: str) -> list[str]:
    return re.findall(r"'([^']*)'", message.rpartition(", found ")[0])


def _unknown_field(kind: str, path: Path) -> str:
    name = str(path[-1])
    allowed = allowed_fields(kind, path[:-1])
    if nearest(name, allowed) is None and (place := elsewhere(kind, name)) is not None:
        return f"unknown field here; did you mean {place}?"
    return _unknown(name, allowed)


def _unknown(name: str, allowed: list[str] | tuple[str, ...]) -> str:
    found = nearest(name, allowed)
    return f"unknown field; did you mean {found}?" if found else f"unknown field; allowed: {', '.join(allowed)}"


def _type_name(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case str():
            return f"the text {value[:40]!r}"
        case _:
            return repr(value)
