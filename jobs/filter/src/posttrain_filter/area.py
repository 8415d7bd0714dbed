"""The work area that the workers of one run share: the kept rows of each unit, and a report that says it is whole."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from posttrain_contract.base import Model
from posttrain_runtime.files import unique, write_json
from pydantic import ValidationError

from posttrain_filter.rows import Unit


class Report(Model):
    """What came of one unit; the file is written last, so a unit with a report is whole."""

    config_digest: str = ""
    unit: str = ""
    rows_read: int = 0
    rows_kept: int = 0
    rows_dropped_by_label: int = 0
    rows_without_label: int = 0
    label_min: float | None = None
    label_max: float | None = None
    columns: tuple[str, ...] = ()


def total(reports: Sequence[Report]) -> Report:
    """The sums over all units, the range of all labels, and every column in the order of its appearance."""
    return Report(
        rows_read=sum(report.rows_read for report in reports),
        rows_kept=sum(report.rows_kept for report in reports),
        rows_dropped_by_label=sum(report.rows_dropped_by_label for report in reports),
        rows_without_label=sum(report.rows_without_label for report in reports),
        label_min=min((r.label_min for r in reports if r.label_min is not None), default=None),
        label_max=max((r.label_max for r in reports if r.label_max is not None), default=None),
        columns=tuple(dict.fromkeys(name for report in reports for name in report.columns)),
    )


@dataclass(frozen=True)
class WorkArea:
    """The files of all units, below the run folder."""

    folder: Path
    config_digest: str
    units: Sequence[Unit]

    def rows_path(self, index: int) -> Path:
        """The kept rows of a unit, as JSON Lines."""
        return self.folder / f"unit-{index:06d}.jsonl"

    def report(self, index: int) -> Report | None:
        """The report of a unit, unless it is unfinished or belongs to another configuration or another source."""
        try:
            found = Report.model_validate_json(self._report_path(index).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        same = found.config_digest == self.config_digest and found.unit == self.units[index].identity
        return found if same else None

    def finish(self, index: int, report: Report) -> None:
        """Declares a unit whole."""
        facts = {"config_digest": self.config_digest, "unit": self.units[index].identity}
        write_json(self._report_path(index), report.model_copy(update=facts).dump())

    @contextmanager
    def writing(self, index: int) -> Iterator[BinaryIO]:
        """A file for the rows of a unit that takes its name once it is whole and on disk."""
        temporary = self.folder / f"{unique(f'unit-{index:06d}')}.tmp"
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.rows_path(index))
        finally:
            temporary.unlink(missing_ok=True)

    def _report_path(self, index: int) -> Path:
        return self.folder / f"unit-{index:06d}.json"
