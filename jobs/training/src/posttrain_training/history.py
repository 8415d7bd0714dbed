"""Reading back the figures of a run, over all its attempts: what a resumed run reports covers the whole of it."""

from collections.abc import Mapping
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.progress import HistoryLine
from pydantic import ValidationError


class History:
    """The figures of ``logs/metrics.jsonl``; of two values for one step the later one holds."""

    def __init__(self, run_folder: Path) -> None:
        self._figures: dict[str, dict[int, float]] = {}
        path = run_folder / layout.METRICS
        if path.is_file():
            with path.open("rb") as lines:
                for line in lines:
                    self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            entry = HistoryLine.model_validate_json(line)
        except ValidationError:  # the last line of a process that was killed while writing
            return
        for name, value in entry.metrics.items():
            self._figures.setdefault(name, {})[entry.step] = value

    def of(self, name: str) -> Mapping[int, float]:
        """One figure by step, in the order of steps."""
        return dict(sorted(self._figures.get(name, {}).items()))

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
