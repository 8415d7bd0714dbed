"""How far a stage is: the answer of its ``/progress`` endpoint, and the lines of its history."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from pydantic import Field, ValidationError

from posttrain_contract.base import Model
from posttrain_contract.hub import Revision

TRAINING: Final = "training"
"""The phase in which the steps are optimizer steps; a stage that trains and does not step in it hangs."""
_MOST: Final = 2**53 - 1
"""The largest number that every reader of JSON keeps."""
Line = TypeVar("Line", bound=Model)


class Progress(Model):
    """A snapshot of a running stage."""

    phase: str = Field(max_length=64, description="What the stage is doing, such as 'loading model' or 'training'.")
    step: int = Field(
        default=0, ge=0, le=_MOST, description="Units done: optimizer steps, rows, or bytes, as the phase counts."
    )
    total_steps: int | None = Field(default=None, ge=0, le=_MOST, description="Units in all, when known.")
    eta_seconds: float | None = Field(default=None, ge=0, le=_MOST, description="Seconds that are left, when known.")
    metrics: dict[str, float] = Field(default={}, description="Newest figures, such as loss or reward.")
    revisions: dict[str, Revision] = Field(default={}, description="The commits of the inputs on the Hub, by name.")
    updated_at: float = Field(ge=0, le=253_402_300_799, description="Unix time of this snapshot, in seconds.")

    @property
    def percent(self) -> float | None:
        """Share done, 0 to 100, when the total is known."""
        if not self.total_steps:
            return None
        return min(100.0, 100.0 * self.step / self.total_steps)


class HistoryLine(Model):
    """One line of ``logs/metrics.jsonl``; of two lines with the same step the later one holds."""

    step: int
    metrics: dict[str, float]
    time: float | None = None
    """Unix time in seconds; the first line is written when the first attempt begins."""


class SampleLine(Model):
    """One line of ``logs/samples.jsonl``: a task and what the model answered."""

    step: int
    prompt: str
    completion: str
    gold: str
    correct: bool


def read_lines(path: Path, kind: type[Line]) -> Iterator[Line]:
    """The lines of a file that hold what they should; none without a file. A killed process leaves half a line."""
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield kind.model_validate_json(line)
            except ValidationError:
                continue


def read_history(path: Path) -> dict[str, dict[int, float]]:
    """Every figure of ``logs/metrics.jsonl`` by step, in the order of steps.

    Of two values for one step the later line holds: a resumed run repeats the steps since its checkpoint.
    """
    figures: dict[str, dict[int, float]] = {}
    for line in read_lines(path, HistoryLine):
        for name, value in line.metrics.items():
            figures.setdefault(name, {})[line.step] = value
    return {name: dict(sorted(values.items())) for name, values in figures.items()}
