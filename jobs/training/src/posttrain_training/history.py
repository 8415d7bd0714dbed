"""Reading back the figures of a run, over all its attempts: what a resumed run reports covers the whole of it."""

from collections.abc import Mapping
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.progress import read_history


class History:
    """The figures of ``logs/metrics.jsonl``."""

    def __init__(self, run_folder: Path) -> None:
        self._figures = read_history(run_folder / layout.METRICS)

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

    def largest(self, name: str) -> float | None:
        """The largest value of all steps, or None when there is none."""
        return max(self.of(name).values(), default=None)
