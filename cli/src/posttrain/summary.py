"""The end of a run in words: a table, where things lie, what failed, and the same as JSON."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain_contract.metrics import (
    EXACT_MATCH,
    EXACT_MATCH_BEFORE,
    FIRST_LOSS,
    FIRST_REWARD,
    LOSS,
    REWARD,
    ROWS_KEPT,
    ROWS_READ,
)

from posttrain.stages import Stage, exact_match_scores, number, printable, short_time

_LOG_LINES = 20
_LOG_BYTES = 64 * 1024


def summary(stages: Sequence[Stage], *, report: Path | None) -> str:
    """The table of a run, its scores, and the paths of what came of it; lines without a newline at the end."""
    parts = [_table(stages), _scores(stages), _places(stages, report)]
    return "\n\n".join(part for part in parts if part)


def _table(stages: Sequence[Stage]) -> str:
    columns: dict[str, list[str]] = {
        "STAGE": [stage.title for stage in stages],
        "PHASE": [stage.phase for stage in stages],
        "TIME": [short_time(stage.duration) if stage.duration is not None else "" for stage in stages],
        **{
            title: [show(stage.status.metrics) for stage in stages]
            for title, show in (
                ("ROWS KEPT", _rows),
                ("LOSS", _figures(FIRST_LOSS, LOSS)),
                ("REWARD", _figures(FIRST_REWARD, REWARD)),
                ("EXACT MATCH", _figures(EXACT_MATCH_BEFORE, EXACT_MATCH)),
                ("FIGURES", _others),
            )
        },
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    return _aligned([list(shown), *(list(row) for row in zip(*shown.values(), strict=True))])


def _rows(metrics: Mapping[str, float]) -> str:
    if ROWS_KEPT not in metrics:
        return ""
    of = f" of {metrics[ROWS_READ]:,.0f}" if ROWS_READ in metrics else ""
    return f"{metrics[ROWS_KEPT]:,.0f}{of}"


def _figures(*names: str) -> Callable[[Mapping[str, float]], str]:
    """Shows those of the figures that there are, such as one before and one after."""

    def show(metrics: Mapping[str, float]) -> str:
        return " -> ".join(f"{metrics[name]:.3f}" for name in names if name in metrics)

    return show


def _others(metrics: Mapping[str, float]) -> str:
    """The figures of a stage that has none of those with a column."""
    if {ROWS_KEPT, LOSS, REWARD, EXACT_MATCH} & metrics.keys():
        return ""
    return ", ".join(f"{name} {number(value)}" for name, value in metrics.items())


def _scores(stages: Sequence[Stage]) -> str:
    scores = exact_match_scores(stages)
    rows = [["  " + score.label, f"{score.value:.3f}"] for score in scores]
    return "Held-out exact match\n" + _aligned(rows) if rows else ""


def _places(stages: Sequence[Stage], report: Path | None) -> str:
    rows = [["  " + stage.title, shown_path(stage.artifact)] for stage in stages if stage.artifact is not None]
    if report is not None:
        rows.append(["  Report", shown_path(report)])
    return "Where it is\n" + _aligned(rows) if rows else ""


def shown_path(path: Path) -> str:
    """The path as a user would type it: relative where it lies below the current folder."""
    here = Path.cwd()
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links away from what was given
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def failure(stage: Stage, log: Path | None) -> str:
    """What a person needs to know of a stage that did not succeed: why, the end of its log, what to do next."""
    lines = [f"{stage.title} {stage.phase.lower()}: {printable(stage.why)}"]
    if stage.phase == "Failed" and log is not None and (tail := last_lines(log)):
        lines += [f"The last lines of {shown_path(log)}:", *(f"  | {printable(line)}" for line in tail)]
    return "\n".join(lines)


def last_lines(log: Path, count: int = _LOG_LINES) -> list[str]:
    """The last lines of a log; none when it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace").rstrip().splitlines()[-count:]
    except OSError:
        return []


def pick_log(stage: Stage, logs: Sequence[Path]) -> Path | None:
    """The log to show of a failed stage: of the newest pod that does the work, or of a server when that failed."""
    condition = stage.condition
    servers_failed = condition is not None and condition.reason.startswith("Server")
    preferred = [log for log in logs if ("-serve-" in log.name) == servers_failed]
    return next(reversed(preferred or list(logs)), None)


def document(stages: Sequence[Stage], *, outcome: str, report: Path | None) -> dict[str, Any]:
    """The end of a run for machines."""
    return {
        "outcome": outcome,
        "objects": [_object(stage) for stage in stages],
        "exactMatch": [{"label": score.label, "value": score.value} for score in exact_match_scores(stages)],
        "report": None if report is None else str(report.absolute()),
    }


def _object(stage: Stage) -> dict[str, Any]:
    condition = stage.condition
    kind, name = stage.title.split("/", 1)
    artifact = stage.status.artifact
    return {
        "kind": kind,
        "namespace": stage.namespace,
        "name": name,
        "phase": stage.phase,
        "reason": condition.reason if condition is not None else None,
        "message": condition.message if condition is not None else None,
        "attempts": len(stage.status.attempts),
        "metrics": stage.status.metrics,
        "artifact": None
        if artifact is None
        else {**artifact.model_dump(mode="json", by_alias=True, exclude_none=True), "path": str(stage.artifact)},
    }
