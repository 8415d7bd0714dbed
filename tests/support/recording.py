"""Which fields of a configuration a program reads."""

from collections.abc import Iterator
from typing import Any

from posttrain_contract.base import Model


def leaves(model: Model, prefix: str = "") -> Iterator[str]:
    """The paths of all fields that hold plain values."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, Model):
            yield from leaves(first, f"{prefix}{name}.")
        else:
            yield prefix + name


class Recording:
    """Stands for a model and notes every field that is read, by the paths of ``leaves``."""

    def __init__(self, model: Model, seen: set[str], prefix: str = "") -> None:
        self._model = model
        self._seen = seen
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name not in type(self._model).model_fields:
            return value
        path = f"{self._prefix}{name}"
        if isinstance(value, Model):
            return Recording(value, self._seen, f"{path}.")
        if isinstance(value, tuple) and value and isinstance(value[0], Model):
            return tuple(Recording(item, self._seen, f"{path}.") for item in value)
        self._seen.add(path)
        return value

    def model_dump(self) -> dict[str, Any]:
        """A dump reads everything below."""
        self._seen.update(leaves(self._model, self._prefix))
        return self._model.model_dump()


class RecordedConfig:
    """A stage configuration whose specification is recorded; its digest reads all fields and proves nothing."""

    def __init__(self, config: Any, seen: set[str]) -> None:
        self._config = config
        self.spec = Recording(config.spec, seen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)
