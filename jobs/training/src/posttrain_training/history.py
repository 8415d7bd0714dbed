"""Reading back the figures of a run, over all its attempts: what a resumed run reports covers the whole of it."""

from collections.abc import Mapping
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.progress import HistoryLine, read_history, read_lines


class History:
    """The figures of ``logs/metrics.jsonl``."""

    def __init__(self, run_folder: Path) -> None:
        self._figures = read_history(run_folder / layout.METRICS)
        first = next(read_lines(run_folder / layout.METRICS, HistoryLine), None)
        self.begun_at = None if first is None else first.time
        """Unix time at which the first attempt began, or None before it did."""

    def of(self, name: str) -> Mapping[int, float]:
        """One figure by step, in the order of steps."""
        return self._figures.get(name, {})

    def first(self, name: str) -> float | None:
        """The value at the earliest step, or None when there is none."""
        return next(iter(self.of(name).values()), None)

    def recent_mean(self, name: str, *, count: int) -> float | None:
        """The mean over the last ``count`` steps, or None when there is none."""
        values = list(self.of(name).values())[-count:]
        return sum(values) / len(values) if values else None

    def last(self, name: str) -> float | None:
        """The value at the latest step, or None when there is none."""
        return next(reversed(list(self.of(name).values())), None)

    def mean(self, name: str) -> float | None:
        """The mean over all steps, or None when there is none."""
        return self.recent_mean(name, count=len(self.of(name)))

    def largest(self, name: str) -> float | None:
        """The largest value of all steps, or None when there is none."""
        return max(self.of(name).values(), default=None)
