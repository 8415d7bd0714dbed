"""What a plan says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from posttrain_contract.artifact import ArtifactSummary

from posttrain_operator.api.status import Attempt, InputStatus, Phase
from posttrain_operator.cluster import Json


@dataclass(frozen=True)
class State:
    """Where the object is, in words."""

    phase: Phase
    reason: str
    message: str
    stalled: bool = False
    """Whether only a person can move it on."""


@dataclass(frozen=True)
class Admission:
    """What a queue says to the present attempt, in words."""

    reason: str
    message: str
    holds: bool = False
    """Whether it has admitted all of it."""
    stalled: bool = False
    """Whether only a person can move it on."""

    @property
    def state(self) -> State:
        """Where an object is that waits for it."""
        return State("Queued", self.reason, self.message, stalled=self.stalled)


@dataclass(frozen=True)
class Plan:
    """The children that should exist, those that should not, and what to say about it."""

    state: State
    create: tuple[Json, ...] = ()
    repair: tuple[Json, ...] = ()
    """Children that somebody has changed and that must be as they were made."""
    delete: tuple[Json, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    inputs: dict[str, InputStatus] | None = None
    """The inputs of the present attempt; None leaves what was said before."""
    metrics: dict[str, float] | None = None
    artifact: ArtifactSummary | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)
    """The commits of inputs on the Hub that an attempt told of as it ended."""
    requeue_after: timedelta | None = None
    admission: Admission | None = None
    """What the queue says; None where there is none."""
    confirm: bool = False
    """Whether it rests on something not being there; then the cluster is asked again before it is followed."""
