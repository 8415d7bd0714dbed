"""What happens to one row: its label decides, its columns get their new names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import msgspec
from posttrain_contract.filter import ByLabel

_SHOWN = 60


class Verdict(Enum):
    """What the label says of a row."""

    KEEP = "keep"
    OUTSIDE = "outside"
    MISSING = "missing"


class RowError(Exception):
    """A row that cannot be judged; ``reason`` is one CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_label(values: Mapping[str, Any], column: str) -> float | None:
    """The label of a row, or None when it is null or absent. Raises ``RowError`` for what is no finite number."""
    raw = values.get(column)
    try:
        value = msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw
        if value is None:
            return None
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RowError("InvalidLabel", f"spec.byLabel.column: {column!r} is {_shown(raw)}, not a finite number")
    return number


def judge(label: float | None, rule: ByLabel) -> Verdict:
    """Compares a label with the bounds, which both belong to the range."""
    if label is None:
        return Verdict.MISSING
    low = -math.inf if rule.min is None else rule.min
    high = math.inf if rule.max is None else rule.max
    return Verdict.KEEP if low <= label <= high else Verdict.OUTSIDE


@dataclass(frozen=True)
class Renamer:
    """Gives columns their new names, in place; a column that is named twice is copied."""

    columns: Mapping[str, str]
    """New name to the name in the source."""

    def rename(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row under its new names. Raises ``RowError`` for a missing column and for two columns of one name."""
        if not self.columns:
            return values
        renamed: dict[str, Any] = {}
        for new, old in self.columns.items():
            if old not in values:
                there = list_columns(values)
                raise RowError("MissingColumn", f"spec.columns.{new}: no column {old!r}; there is {there}")
        for name, value in values.items():
            for target in self._targets.get(name, (name,)):
                if target in renamed:
                    raise RowError("DuplicateColumn", f"spec.columns: two columns of a row would be named {target!r}")
                renamed[target] = value
        return renamed

    @cached_property
    def _targets(self) -> dict[str, tuple[str, ...]]:
        olds = dict.fromkeys(self.columns.values())
        return {old: tuple(new for new, source in self.columns.items() if source == old) for old in olds}


def list_columns(names: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Column names for a message."""
    return ", ".join(names) or "no column at all"


def _shown(raw: object) -> str:
    text = bytes(raw).decode() if isinstance(raw, msgspec.Raw) else repr(raw)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
