"""Which fields of a configuration a program reads."""

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from posttrain_contract.base import Model

M = TypeVar("M", bound=Model)


def leaves(model: Model, prefix: str = "") -> Iterator[str]:
    """The paths of all fields that hold plain values."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, Model):
            yield from leaves(first, f"{prefix}{name}.")
        else:
            yield prefix + name


def recorded(model: M, seen: set[str], prefix: str = "") -> M:
    """A copy of a model that adds to ``seen`` every field that is read, by the paths of ``leaves``.

    It is of the model's own type, so that programs can build it into others. Writing such a whole down as JSON, as for
    a ConfigMap or a digest, reads nothing: what is only passed on has no reader yet.
    """
    original = type(model)
    paths = {name: prefix + name for name in original.model_fields if not _has_models(getattr(model, name))}

    def read(self: Any, name: str) -> Any:
        if name in paths:
            seen.add(paths[name])
        return original.__getattribute__(self, name)

    def dump(self: Any, **_: Any) -> dict[str, Any]:
        """Whoever asks for a dump of a part, uses all of it."""
        seen.update(leaves(model, prefix))
        return model.model_dump()

    unchecked = classmethod(lambda cls: iter(()))  # rules between fields look at them, and use none
    body = {"__getattribute__": read, "model_dump": dump, "all_rules": unchecked, "__module__": __name__}
    copy: Any = type(f"Recorded{original.__name__}", (original,), body)
    fields = {name: _recorded(getattr(model, name), seen, f"{prefix}{name}.") for name in original.model_fields}
    return cast("M", copy.model_construct(**fields))


def _has_models(value: Any) -> bool:
    return isinstance(value, Model) or (isinstance(value, tuple) and bool(value) and isinstance(value[0], Model))


def _recorded(value: Any, seen: set[str], prefix: str) -> Any:
    if isinstance(value, Model):
        return recorded(value, seen, prefix)
    return tuple(recorded(item, seen, prefix) for item in value) if _has_models(value) else value
