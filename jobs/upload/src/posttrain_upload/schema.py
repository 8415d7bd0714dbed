"""Column types of JSON rows: one schema for all of them, never one that was guessed from the first few."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa


class MixedTypesError(Exception):
    """Two values of a column that no column type holds both; ``path`` says where below the column."""

    def __init__(self, path: str, first: object, second: object) -> None:
        super().__init__(path, first, second)
        self.path = path
        self.first = first
        self.second = second


def merge(first: Any, second: Any, *, path: str) -> Any:
    """The Arrow type that holds values of both types. Raises ``MixedTypesError``."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if {first, second} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(first) and pa.types.is_list(second):
        return pa.list_(merge(first.value_type, second.value_type, path=f"{path}[]"))
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        return pa.struct(merge_fields(_fields(first), _fields(second), path=f"{path}."))
    raise MixedTypesError(path, first, second)


def merge_fields(first: Mapping[str, Any], second: Mapping[str, Any], *, path: str = "") -> dict[str, Any]:
    """The types by name that hold rows of both; a field that one side lacks is null there."""
    names = dict.fromkeys([*first, *second])
    return {
        name: merge(first.get(name, pa.null()), second.get(name, pa.null()), path=f"{path}{name}") for name in names
    }


def infer(values: Sequence[object], *, path: str) -> Any:
    """The Arrow type of JSON values. Raises ``MixedTypesError``, and ``OverflowError`` beyond 64-bit integers."""
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        kind = pa.null()
        for value in values:
            kind = merge(kind, _infer_one(value, path=path), path=path)
        return kind


def _infer_one(value: object, *, path: str) -> Any:
    if isinstance(value, list):
        return pa.list_(infer(value, path=f"{path}[]"))
    if isinstance(value, dict):
        return pa.struct({name: _infer_one(item, path=f"{path}.{name}") for name, item in value.items()})
    return pa.array([value]).type


def settle(kind: Any, *, path: str) -> Any:
    """The type that is written: what was null everywhere is text.

    Raises ``ValueError`` with the path of an object without fields, which Parquet cannot hold.
    """
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(settle(kind.value_type, path=f"{path}[]"))
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise ValueError(path)
        return pa.struct({name: settle(item, path=f"{path}.{name}") for name, item in _fields(kind).items()})
    return kind


def _fields(struct: Any) -> dict[str, Any]:
    return {struct.field(index).name: struct.field(index).type for index in range(struct.num_fields)}
