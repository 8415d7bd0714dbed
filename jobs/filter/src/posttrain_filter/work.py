"""A worker of the filter does its share of the units; the one that finds all done puts the dataset together."""

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.filter import ByLabel, FilterSpec
from posttrain_contract.metrics import KEPT_PERCENT, ROWS_KEPT, ROWS_READ
from posttrain_contract.stage import FilterStage
from posttrain_runtime import store
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.errors import StageError

from posttrain_filter.area import Report, WorkArea, total
from posttrain_filter.rows import Row, Unit
from posttrain_filter.rules import Renamer, RowError, Verdict, judge, list_columns, read_label
from posttrain_filter.source import find_files, plan_units, share

log = logging.getLogger(__name__)

_REPORT_EVERY = 1000
_MOST_FAULTS = 100
_MOST_COLUMNS = 1000


def filter_rows(context: StageContext[FilterStage]) -> Finished:
    """Does this worker's share; stages the dataset when every worker has done its own.

    Raises ``StageError`` (DATA) for rows that cannot be judged, for columns that no row has and when no row is kept.
    """
    spec = context.config.spec
    files = find_files(context.input_path("source").resolve(), context.input("source"))
    units = plan_units(files, workers=spec.parallelism)
    area = WorkArea(context.work_area, context.digest, units)
    try:
        return _share_and_assemble(context, area)
    except FileNotFoundError:
        # The worker that published has removed the work area under our hands: nothing is left to do.
        if store.read_manifest(context.folder) is None:
            raise
        return Finished()


def _share_and_assemble(context: StageContext[FilterStage], area: WorkArea) -> Finished:
    spec = context.config.spec
    area.folder.mkdir(exist_ok=True)
    worker = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    Worker(context, area).work(share(len(area.units), worker=worker, workers=spec.parallelism))
    reports = [area.report(index) for index in range(len(area.units))]
    done = [report for report in reports if report is not None]
    if store.read_manifest(context.folder) is not None:
        store.discard(area.folder)
        return Finished()
    if len(done) < len(reports):
        log.info("%d of %d units are done; another worker puts the dataset together", len(done), len(reports))
        return Finished()
    result = total(done)
    _check(result, spec)
    _assemble(context, area, result.rows_kept)
    staged = store.Staged(context.staging, "dataset", rows=result.rows_kept)
    return Finished(_metrics(result), staged)


def _metrics(report: Report) -> dict[str, float]:
    return {
        ROWS_READ: report.rows_read,
        ROWS_KEPT: report.rows_kept,
        "rowsDroppedByLabel": report.rows_dropped_by_label,
        "rowsWithoutLabel": report.rows_without_label,
        KEPT_PERCENT: 100.0 * report.rows_kept / max(1, report.rows_read),
    }


@dataclass
class _Faults:
    """Rows that cannot be judged: the first is shown, the rest are counted up to a bound."""

    count: int = 0
    first: StageError | None = None

    def add(self, unit: Unit, row: Row, problem: RowError) -> None:
        self.count += 1
        if self.first is None:
            self.first = StageError(ExitCode.DATA, problem.reason, f"{unit.where(row.position)}: {problem}")
        if self.count >= _MOST_FAULTS:
            self.check()

    def check(self) -> None:
        if self.first is None:
            return
        many = f"at least {self.count}" if self.count >= _MOST_FAULTS else str(self.count)
        rows = "1 such row was found" if self.count == 1 else f"{many} such rows were found"
        raise StageError(
            self.first.code, self.first.reason, f"spec.source: {self.first.message}; {rows}; mend or remove them"
        )


@dataclass
class Worker:
    """Filters units one after another and tells how far it is."""

    context: StageContext[FilterStage]
    area: WorkArea
    _faults: _Faults = field(default_factory=_Faults)
    _done: list[Report] = field(default_factory=list)

    def work(self, indices: range) -> None:
        """Filters the units that have no report yet. Raises ``StageError`` when a row cannot be judged."""
        size = sum(self.area.units[index].weight for index in indices)
        before = 0
        for index in indices:
            report = self.area.report(index) or self._filter(index, before, size)
            self._done.append(report)
            before += self.area.units[index].weight
            self._tell(report=None, done=before, size=size)
        self._faults.check()

    def _filter(self, index: int, before: int, size: int) -> Report:
        unit = self.area.units[index]
        tally = _Tally(self.context.config.spec)
        with self.area.writing(index) as file:
            for number, row in enumerate(unit.rows()):
                if number % _REPORT_EVERY == 0:
                    self.context.check_stop()
                    self._tell(report=tally.report(), done=before + row.done, size=size)
                try:
                    file.write(tally.take(row))
                except RowError as problem:
                    self._faults.add(unit, row, problem)
        if not self._faults.count:
            self.area.finish(index, tally.report())
        return tally.report()

    def _tell(self, *, report: Report | None, done: int, size: int) -> None:
        figures = _metrics(total([*self._done, *([report] if report else [])]))
        self.context.progress.update("filtering", step=done, total=size, metrics=figures)


class _Tally:
    """Filters the rows of one unit and counts."""

    def __init__(self, spec: FilterSpec) -> None:
        self._rule: ByLabel = spec.by_label
        self._renamer = Renamer(spec.columns)
        self._counts = dict.fromkeys(Verdict, 0)
        self._kept = 0
        self._low, self._high = math.inf, -math.inf
        self._columns: dict[str, None] = {}

    def take(self, row: Row) -> bytes:
        """The row as a line, or nothing when it is dropped. Raises ``RowError`` when it cannot be judged."""
        if row.fault is not None:
            raise RowError("InvalidRow", row.fault)
        if len(self._columns) < _MOST_COLUMNS:
            self._columns.update(dict.fromkeys(row.values))
        label = read_label(row.values, self._rule.column)
        verdict = judge(label, self._rule)
        if verdict is Verdict.MISSING and self._rule.missing == "error":
            raise RowError(
                "MissingLabel",
                f"spec.byLabel.column: {self._rule.column!r} is null or absent (spec.byLabel.missing is error); "
                f"the columns are {list_columns(row.values)}",
            )
        keep = verdict is Verdict.KEEP or (verdict is Verdict.MISSING and self._rule.missing == "keep")
        line = _encode(self._renamer.rename(row.values)) if keep else b""
        self._counts[verdict] += 1
        self._kept += keep
        if label is not None:
            self._low, self._high = min(self._low, label), max(self._high, label)
        return line

    def report(self) -> Report:
        """The counts so far."""
        return Report(
            rows_read=sum(self._counts.values()),
            rows_kept=self._kept,
            rows_dropped_by_label=self._counts[Verdict.OUTSIDE],
            rows_without_label=self._counts[Verdict.MISSING],
            label_min=self._low if self._low <= self._high else None,
            label_max=self._high if self._low <= self._high else None,
            columns=tuple(self._columns),
        )


def _encode(values: object) -> bytes:
    """One line of JSON. What JSON has no word for (dates apart) becomes text; a Parquet NaN becomes null."""
    return msgspec.json.encode(values, enc_hook=str) + b"\n"


def _check(result: Report, spec: FilterSpec) -> None:
    rule = spec.by_label
    if result.rows_read and rule.column not in result.columns and len(result.columns) < _MOST_COLUMNS:
        raise StageError(
            ExitCode.DATA,
            "MissingColumn",
            f"spec.byLabel.column: no row has a column {rule.column!r}; there is {list_columns(result.columns)}",
        )
    if result.rows_kept:
        return
    low = "" if rule.min is None else f" min {rule.min:g}"
    high = "" if rule.max is None else f" max {rule.max:g}"
    labels = "no row has one" if result.label_min is None else f"it lies in {result.label_min:g}..{result.label_max:g}"
    raise StageError(
        ExitCode.DATA,
        "EmptyDataset",
        f"spec.byLabel: none of {result.rows_read} rows is kept by{low}{high} on {rule.column!r}; {labels} "
        f"({result.rows_without_label} rows without label); widen the range",
    )


def _assemble(context: StageContext[FilterStage], area: WorkArea, rows: int) -> None:
    """Writes the shards, in source order, whatever the units were."""
    context.staging.mkdir(parents=True, exist_ok=True)
    lines = _kept_lines(area)
    per_shard = context.config.spec.output.rows_per_shard
    for number, first in enumerate(range(0, rows, per_shard)):
        context.check_stop()
        context.progress.update("assembling", step=first, total=rows)
        _write_shard(context.staging / f"part-{number:05d}.jsonl", lines, min(per_shard, rows - first))


def _kept_lines(area: WorkArea) -> Iterator[bytes]:
    for index in range(len(area.units)):
        with area.rows_path(index).open("rb") as file:
            yield from file


def _write_shard(path: Path, lines: Iterator[bytes], count: int) -> None:
    with path.open("wb") as file:
        for _ in range(count):
            file.write(next(lines))
