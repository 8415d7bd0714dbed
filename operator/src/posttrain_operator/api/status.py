"""``status``, equal in all kinds: written by the operator alone."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.base import Model, Rule
from posttrain_contract.hub import Revision
from posttrain_contract.inputs import NoDots, UriPattern
from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, ValidationError, WithJsonSchema

from posttrain_operator.api.quantities import to_datetime


def _parse_time(value: Any) -> Any:
    return to_datetime(value) if isinstance(value, str) else value


Time = Annotated[
    datetime,
    BeforeValidator(_parse_time),
    PlainSerializer(lambda t: t.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment in UTC, with whole seconds when written."""

Phase = Literal["Pending", "Waiting", "Queued", "Starting", "Running", "Suspended", "Succeeded", "Failed"]
Outcome = Literal["Succeeded", "Failed", "Preempted", "Suspended", "Lost", "Released"]

MAX_TEXT: Final = 4096
MAX_WORD: Final = 253
MAX_METRICS: Final = 64
MAX_NAME: Final = 64
MAX_ATTEMPTS: Final = 256
MAX_INT: Final = 2**53 - 1  # the API server reads bounds as doubles: it refuses every write under a larger one
"""``posttrain_operator.status`` keeps within these."""


def _keyed_by(key: str) -> dict[str, JsonValue]:
    """A list whose entries are merged by the field with this key, not replaced as a whole."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class Condition(Model):
    """A metav1 condition."""

    type: str = Field(max_length=316, description="What is said.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="One word why.")
    message: str = Field(default="", max_length=32_768, description="A sentence for people.")
    last_transition_time: Time = Field(description="When the status changed last.")
    observed_generation: int = Field(ge=0, description="The generation that this was said of.")


class Attempt(Model):
    """One try: the same inputs, new pods."""

    number: int = Field(ge=1, description="1 for the first.")
    start_time: Time = Field(description="When its children were created.")
    running_time: Time | None = Field(
        default=None, description="Since when all its pods run, or ran; absent before, and while its queue suspends it."
    )
    end_time: Time | None = Field(default=None, description="When it ended; absent while it runs.")
    outcome: Outcome | None = Field(default=None, description="How it ended.")
    exit_code: int | None = Field(default=None, description="Exit status of the pod that failed first.")
    reason: str | None = Field(default=None, max_length=1024, description="One word why.")
    message: str | None = Field(default=None, max_length=MAX_TEXT, description="A sentence for people.")
    resumed_from: str | None = Field(default=None, max_length=MAX_WORD, description="The checkpoint it went on from.")
    gpus: int | None = Field(
        default=None, ge=0, le=MAX_INT, description="GPUs of all its pods together; absent until they ran."
    )

    @property
    def ran(self) -> bool:
        """Whether all its pods ran at some time."""
        return self.running_time is not None or self.gpus is not None

    def gpu_seconds(self, until: datetime) -> int:
        """What it cost from the moment it ran, times its GPUs; 0 where clocks contradict each other."""
        if self.running_time is None:
            return 0
        return max(0, int((until - self.running_time).total_seconds())) * (self.gpus or 0)


class ProgressStatus(Model):
    """How far the running attempt is."""

    phase: str = Field(max_length=64, description="What the stage is doing.")
    percent: int | None = Field(default=None, ge=0, le=100, description="Share done.")
    step: int = Field(ge=0, le=MAX_INT, description="Units done.")
    total_steps: int | None = Field(default=None, ge=0, le=MAX_INT, description="Units in all.")
    eta_seconds: int | None = Field(default=None, ge=0, le=MAX_INT, description="Seconds that are left.")
    headline: str | None = Field(default=None, max_length=64, description="The figure that matters, such as loss 0.31.")
    metrics: dict[str, float] = Field(default={}, max_length=MAX_METRICS, description="Newest figures.")
    updated_at: Time = Field(description="When the stage said so.")


class InputStatus(Model):
    """An input as it was resolved."""

    uri: str = Field(pattern=UriPattern, max_length=2048, description="Where it is read.")
    digest: str | None = Field(default=None, max_length=64, description="SHA-256 of the artifact.")
    revision: Revision | None = Field(default=None, description="The commit that is read of an input on the Hub.")

    rules: ClassVar[tuple[Rule, ...]] = (NoDots,)


class Status(Model):
    """What the operator says of an object."""

    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this was said of.")
    phase: Phase | None = Field(default=None, description="One word for people; machines read the conditions.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=32,
        description="What holds, by type: Ready, Running, Succeeded, Failed and others.",
        json_schema_extra=_keyed_by("type"),
    )
    inputs: dict[str, InputStatus] = Field(default={}, max_length=32, description="Inputs as resolved.")
    attempts: tuple[Attempt, ...] = Field(
        default=(),
        max_length=MAX_ATTEMPTS,
        description="Every attempt, oldest first; of very many, old ones that cost no retry are left out.",
        json_schema_extra=_keyed_by("number"),
    )
    progress: ProgressStatus | None = Field(default=None, description="How far the running attempt is.")
    metrics: dict[str, float] = Field(default={}, max_length=MAX_METRICS, description="Final figures.")
    artifact: ArtifactSummary | None = Field(default=None, description="What was published.")
    start_time: Time | None = Field(default=None, description="When the first attempt began.")
    completion_time: Time | None = Field(default=None, description="When the job ended.")
    gpu_seconds: int | None = Field(
        default=None, ge=0, le=MAX_INT, description="GPU-seconds of the attempts that have ended."
    )

    def condition(self, kind: str) -> Condition | None:
        """The condition of a type, if it was ever said."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def holds(self, kind: str) -> bool:
        """Whether the condition of a type is True."""
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"

    @property
    def open_attempt(self) -> Attempt | None:
        """The attempt that has not ended."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].end_time is None else None

    @property
    def finished(self) -> bool:
        """Whether the job ended; such a job is never run again."""
        return self.holds("Succeeded") or self.holds("Failed")

    def to_json(self) -> dict[str, Any]:
        """The status as it is written: absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_status(raw: Any) -> Status:
    """The status of an object.

    Fields of a newer release are passed over. What somebody else garbled counts as absent, field by field and of lists
    entry by entry, so that one wrong word costs neither the attempts nor the end of a job; it is then written anew.
    """
    if not isinstance(raw, dict):
        return Status()
    try:
        return _read(raw)
    except ValidationError:
        kept = {key: value for name, told in raw.items() for key, value in _readable(name, told).items()}
        return _read(kept)


def _read(raw: dict[str, Any]) -> Status:
    return Status.model_validate(raw, extra="ignore")


def _readable(name: str, told: Any) -> dict[str, Any]:
    """The field with what can be read of it, or nothing."""
    kept = [entry for entry in told if _is_readable({name: [entry]})] if isinstance(told, list) else told
    return {name: kept} if _is_readable({name: kept}) else {}


def _is_readable(raw: dict[str, Any]) -> bool:
    try:
        _read(raw)
    except ValidationError:
        return False
    return True
