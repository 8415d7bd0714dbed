"""The form in which every benchmark shows what it found: a row a figure, on the terminal and as JSON."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent / "results"
_HEADINGS: Final = ("figure", "ours", "baseline", "", "ratio", "target", "holds")


@dataclass(frozen=True)
class Baseline:
    """What somebody else came to in the same run, in the unit of the row."""

    value: float
    whose: str


@dataclass(frozen=True)
class Row:
    """One figure. Without a target it is there to be compared with, and nothing was promised."""

    figure: str
    ours: float
    unit: str = ""
    baseline: Baseline | None = None
    at_most: float | None = None
    """The target for ``ours``."""
    at_least: float | None = None
    """The floor for ``ours``; no row has both."""
    ratio_at_most: float | None = None
    """The target for ``ratio``."""

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of the baseline."""
        return self.ours / self.baseline.value if self.baseline is not None and self.baseline.value else None

    @property
    def target(self) -> str:
        """The target as it is shown."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.ratio_at_most is None else f"<= {self.ratio_at_most:g}x"

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None where there is none. A missing baseline meets nothing."""
        if self.at_most is not None:
            return self.ours <= self.at_most
        if self.at_least is not None:
            return self.ours >= self.at_least
        if self.ratio_at_most is None:
            return None
        return self.ratio is not None and self.ratio <= self.ratio_at_most

    def to_json(self) -> dict[str, Any]:
        """The row with what follows from it."""
        return {**asdict(self), "ratio": self.ratio, "target": self.target, "holds": self.holds}


def report(area: str, rows: Sequence[Row], **more: Any) -> int:
    """Prints the table and writes ``results/<area>.json``; the exit status, see ``show``."""
    status = show(rows)
    document: Mapping[str, Any] = {"cores": os.cpu_count(), "rows": [row.to_json() for row in rows], **more}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{area}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return status


def show(rows: Sequence[Row]) -> int:
    """Prints the table; the exit status, 1 when a target does not hold."""
    sys.stdout.write(_text([_HEADINGS, *map(_cells, rows)]))
    return 1 if any(row.holds is False for row in rows) else 0


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.figure,
        f"{row.ours:.3g} {row.unit}".strip() if row.ours < 1000 else f"{row.ours:.0f} {row.unit}",
        f"{row.baseline.value:.3g} {row.unit}" if row.baseline is not None else "",
        row.baseline.whose if row.baseline is not None else "",
        f"{row.ratio:.2f}x" if row.ratio is not None else "",
        row.target,
        "" if row.holds is None else "holds" if row.holds else "MISSED",
    )


def _text(table: Iterable[Sequence[str]]) -> str:
    lines = list(table)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
