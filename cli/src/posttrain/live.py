"""Showing a run while it goes on: one live line a stage on a terminal, plain log lines elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

from posttrain_operator.api.status import ProgressStatus, Status, read_status
from posttrain_operator.cluster import Json

from posttrain.stages import printable, short_time

_PLAIN_INTERVAL = 10.0
"""Seconds between plain lines of a stage that is running."""
_BAR_WIDTH = 14
_COLOURS = {"Running": "cyan", "Succeeded": "green", "Failed": "red", "Suspended": "yellow"}


@dataclass(frozen=True)
class Line:
    """One stage at one moment."""

    title: str
    phase: str
    percent: int | None
    detail: str

    def text(self, *, width: int = 0) -> str:
        """The line without colours; the title takes at least ``width`` columns."""
        percent = "" if self.percent is None else f"{self.percent}%"
        return f"{self.title:<{width}}  {self.phase:<9}  {percent:>4}  {self.detail}".rstrip()


def describe(obj: Json) -> Line:
    """What there is to say about an object at this moment."""
    status = read_status(obj.get("status"))
    phase = status.phase or "Pending"
    progress = status.progress if phase in ("Running", "Succeeded") else None
    return Line(
        title=f"{obj['kind']}/{obj['metadata']['name']}",
        phase=phase,
        percent=progress.percent if progress is not None else None,
        detail=printable("  ".join(part for part in _details(status, phase, progress) if part)),
    )


def _details(status: Status, phase: str, progress: ProgressStatus | None) -> list[str]:
    attempt = f"attempt {status.attempts[-1].number}" if len(status.attempts) > 1 and phase != "Succeeded" else ""
    if phase == "Succeeded":
        took = status.completion_time - status.start_time if status.completion_time and status.start_time else None
        return [f"in {short_time(took)}" if took is not None else "", (progress and progress.headline) or ""]
    if progress is not None:
        return [attempt, *_progress_details(progress)]
    ready = status.condition("Ready")
    if ready is None:
        return []
    return [attempt, ": ".join(part for part in (ready.reason, ready.message) if part not in ("", phase))]


def _progress_details(progress: ProgressStatus) -> list[str]:
    step = f"{progress.step:,}/{progress.total_steps:,}" if progress.total_steps else ""
    eta = "" if progress.eta_seconds is None else f"ETA {short_time(timedelta(seconds=progress.eta_seconds))}"
    return [progress.phase, step, eta, progress.headline or ""]


class Display(Protocol):
    """Shows a run to a person."""

    def __enter__(self) -> Self:
        """Begins to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Leaves the last state standing."""

    def watch(self, objects: Sequence[Json]) -> None:
        """Shows the objects as they are now."""

    def say(self, sentence: str) -> None:
        """Shows a sentence once."""


class PlainDisplay:
    """Log lines: one when a stage's phase or reason changes, and one every ten seconds while it runs."""

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._states: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, str] = {}
        self._written: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to leave: every line stands already."""

    def watch(self, objects: Sequence[Json]) -> None:
        """Writes the lines that are due."""
        width = max((len(describe(obj).title) for obj in objects), default=0)
        for obj in objects:
            self._watch_one(obj, width)

    def _watch_one(self, obj: Json, width: int) -> None:
        line, now = describe(obj), self._clock()
        key = f"{obj['metadata'].get('namespace', '')}/{line.title}"
        text = line.text(width=width)
        due = line.phase == "Running" and now - self._written.get(key, now) >= _PLAIN_INTERVAL
        if _state(obj) != self._states.get(key) or (due and text != self._lines.get(key)):
            self._states[key], self._lines[key], self._written[key] = _state(obj), text, now
            self._write(f"{time.strftime('%H:%M:%S')}  {text}")

    def say(self, sentence: str) -> None:
        """Writes the sentence with the time."""
        self._write(f"{time.strftime('%H:%M:%S')}  {printable(sentence)}")


def _state(obj: Json) -> tuple[str, str]:
    """Phase and reason: what a line is written for when it changes."""
    status = read_status(obj.get("status"))
    ready = status.condition("Ready")
    return status.phase or "Pending", "" if ready is None else ready.reason


class LiveDisplay:
    """One line a stage that stays in its place on the terminal; sentences go above."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - validate does not need it
        from rich.live import Live  # noqa: PLC0415

        self._live = Live(console=Console(stderr=True), refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def watch(self, objects: Sequence[Json]) -> None:
        """Redraws the lines."""
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(4):
            table.add_column(no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for line in map(describe, objects):
            bar = "" if line.percent is None else ProgressBar(total=100, completed=line.percent, width=_BAR_WIDTH)
            percent = "" if line.percent is None else f"{line.percent}%"
            phase = Text(line.phase, style=_COLOURS.get(line.phase, "default"))
            table.add_row(Text(line.title), phase, bar, percent, Text(line.detail))
        self._live.update(table)

    def say(self, sentence: str) -> None:
        """Prints the sentence above the lines."""
        self._live.console.print(printable(sentence), markup=False, highlight=False)


def choose_display(
    *, write: Callable[[str], None], is_terminal: bool | None = None, environment: Mapping[str, str] = os.environ
) -> Display:
    """Live lines on a terminal, unless ``NO_COLOR`` or ``NO_PROGRESS`` is set; else plain ones through ``write``."""
    terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
    if not terminal or environment.get("NO_COLOR") or environment.get("NO_PROGRESS"):
        return PlainDisplay(write)
    return LiveDisplay()
