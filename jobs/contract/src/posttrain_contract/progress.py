"""How far a stage is: the answer of its ``/progress`` endpoint, and a line of its history."""

from pydantic import Field

from posttrain_contract.base import Model


class Progress(Model):
    """A snapshot of a running stage."""

    phase: str = Field(max_length=64, description="What the stage is doing, such as 'loading model' or 'training'.")
    step: int = Field(default=0, ge=0, description="Units done: optimizer steps, rows, or bytes, as the phase counts.")
    total_steps: int | None = Field(default=None, ge=0, description="Units in all, when known.")
    eta_seconds: float | None = Field(default=None, ge=0, description="Seconds that are left, when known.")
    metrics: dict[str, float] = Field(default={}, description="Newest figures, such as loss or reward.")
    updated_at: float = Field(ge=0, le=253_402_300_799, description="Unix time of this snapshot, in seconds.")

    @property
    def percent(self) -> float | None:
        """Share done, 0 to 100, when the total is known."""
        if not self.total_steps:
            return None
        return min(100.0, 100.0 * self.step / self.total_steps)


class HistoryLine(Model):
    """One line of ``logs/metrics.jsonl``; of two lines with the same step the later one holds."""

    attempt: int
    step: int
    time: float = Field(description="Unix time in seconds.")
    metrics: dict[str, float]


class SampleLine(Model):
    """One line of ``logs/samples.jsonl``: a task and what the model answered."""

    step: int
    prompt: str
    completion: str
    gold: str
    correct: bool
