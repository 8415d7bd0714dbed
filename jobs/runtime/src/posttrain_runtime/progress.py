"""Telling how far the stage is: a small file that the telemetry endpoint reads, and a history for reports."""

import contextlib
import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

from posttrain_contract.progress import HistoryLine, Progress
from pydantic import ValidationError

log = logging.getLogger(__name__)

_WRITE_INTERVAL = 0.2
_LOG_INTERVAL = 10.0


class ProgressReporter:
    """Reports the progress of one process; the leading rank's is the stage's.

    Cheap to call on every step: the file is written at most five times a second, a log line every ten seconds.
    """

    def __init__(self, path: Path, *, history: Path) -> None:
        self._path = path
        self._history = history
        self._metrics: dict[str, float] = {}
        self._phase = ""
        self._phase_start = (0.0, 0)
        self._written = 0.0
        self._logged = 0.0
        self._descriptor: int | None = None
        self.listeners: list[Callable[[int, Mapping[str, float]], None]] = []
        """Called with every record of the history."""
        self.revisions: dict[str, str] = {}
        """The commits of the inputs on the Hub, by name."""

    def update(
        self, phase: str, *, step: int = 0, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Says what the stage is doing, how many units are done and how many there are."""
        now = time.time()
        changed = phase != self._phase
        if changed:
            self._phase, self._phase_start = phase, (now, step)
        self._metrics.update(_finite(metrics or {}))
        done = total is not None and step >= total
        if changed or done or now - self._written >= _WRITE_INTERVAL:
            self._write(now, step, total)
        if changed or done or now - self._logged >= _LOG_INTERVAL:
            self._logged = now
            log.info("%s %s %s", phase, _fraction(step, total), _figures(self._metrics))

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds figures to the history, for curves; the newest also appear in the progress."""
        finite = _finite(metrics)
        self._metrics.update(finite)
        line = HistoryLine(step=step, metrics=finite, time=round(time.time(), 3))
        for listener in self.listeners:
            listener(step, finite)
        os.write(self._file(), line.model_dump_json(by_alias=True).encode() + b"\n")

    def _file(self) -> int:
        """The history, opened once: steps may be milliseconds, and the file may be on a network."""
        if self._descriptor is None:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._history, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor

    def _write(self, now: float, step: int, total: int | None) -> None:
        self._written = now
        started, first = self._phase_start
        rate = (step - first) / (now - started) if now > started else 0.0
        eta = (total - step) / rate if total is not None and rate > 0 else None
        snapshot = Progress(
            phase=self._phase,
            step=step,
            total_steps=total,
            eta_seconds=eta,
            metrics=self._metrics,
            revisions=self.revisions,
            updated_at=now,
        )
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(snapshot.model_dump_json(by_alias=True), encoding="utf-8")
        temporary.replace(self._path)


def read_progress(path: Path) -> Progress | None:
    """The last snapshot, or None before the first."""
    with contextlib.suppress(FileNotFoundError, ValidationError):
        return Progress.model_validate_json(path.read_bytes())
    return None


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _fraction(step: int, total: int | None) -> str:
    return "" if total is None else f"{step}/{total}"


def _figures(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
