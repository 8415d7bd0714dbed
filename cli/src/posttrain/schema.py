"""What may be written where: the fields of the four kinds, looked up by path."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from posttrain_contract.base import Model
from posttrain_contract.inputs import Input
from posttrain_operator.api.resources import KINDS
from posttrain_operator.api.run import RunSpec
from pydantic.fields import FieldInfo

from posttrain.documents import Path

_SIMILAR = 0.6
"""How alike two words must be, 0 to 1, to be suggested."""


def allowed_fields(kind: str, path: Path) -> list[str]:
    """The fields that may stand below a path of a kind, such as ``("spec", "training")``; none where there are none."""
    model = _model_at(kind, path)
    names = [_alias(name, field) for name, field in model.model_fields.items()] if model else []
    return [*names, "run"] if path == ("spec",) else names


def description(kind: str, path: Path) -> str:
    """What a field means, in the words of the contract; empty for what is no field."""
    model = _model_at(kind, path[:-1])
    for name, field in model.model_fields.items() if model else ():
        if _alias(name, field) == path[-1]:
            return (field.description or "").rstrip(".")
    return ""


def elsewhere(kind: str, name: str) -> str | None:
    """The path of the only field of a kind with this name, for a field that stands on the wrong level."""
    places = [*_search(KINDS[kind].spec, name, "spec"), *_search(RunSpec, name, "spec.run")]
    return places[0] if len(places) == 1 else None


def inputs_in(kind: str, spec: Any) -> Iterator[tuple[Path, str]]:
    """Every ``from`` of a specification that may be broken elsewhere: its path and what it names."""
    yield from _inputs(KINDS[kind].spec, spec, ("spec",))


def nearest(word: str, options: Iterable[str], *, similarity: float = _SIMILAR) -> str | None:
    """The option that looks most like a word, if any does."""
    plain = {_plain(option): option for option in options}
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=similarity)
    return plain[found[0]] if found else None


def suggestion(word: str, options: Iterable[str]) -> str:
    """``; did you mean X?`` or nothing."""
    found = nearest(word, options)
    return f"; did you mean {found}?" if found else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _model_at(kind: str, path: Path) -> type[Model] | None:
    """The class whose fields stand below a path."""
    rest = [part for part in path[1:] if isinstance(part, str)]
    model: type[Model] | None = KINDS[kind].spec
    if rest[:1] == ["run"]:
        model, rest = RunSpec, rest[1:]
    for part in rest:
        if model is None:
            return None
        named = {_alias(name, field): field for name, field in model.model_fields.items()}
        model = _model_in(named[part].annotation) if part in named else None
    return model


def _search(model: type[Model], name: str, prefix: str) -> Iterator[str]:
    for attribute, field in model.model_fields.items():
        alias = _alias(attribute, field)
        if alias == name:
            yield f"{prefix}.{alias}"
        elif (inner := _model_in(field.annotation)) is not None:
            yield from _search(inner, name, f"{prefix}.{alias}")


def _inputs(model: type[Model], data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if not isinstance(data, Mapping):
        return
    if issubclass(model, Input) and isinstance(data.get("from"), str):
        yield (*path, "from"), data["from"]
    for name, field in model.model_fields.items():
        alias = _alias(name, field)
        if alias in data and (inner := _model_in(field.annotation)) is not None:
            yield from _inputs(inner, data[alias], (*path, alias))


def _model_in(annotation: Any) -> type[Model] | None:
    """The contract class in an annotation, such as that of ``tuple[Reward, ...]`` or ``Adapter | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _alias(name: str, field: FieldInfo) -> str:
    return field.alias or name
