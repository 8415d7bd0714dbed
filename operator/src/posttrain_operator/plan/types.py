"""What a plan says."""

from dataclasses import dataclass
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
class Plan:
    """The children that should exist, those that should not, and what to say about it."""

    state: State
    create: tuple[Json, ...] = ()
    delete: tuple[Json, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    inputs: dict[str, InputStatus] | None = None
    """The inputs of the present attempt; None leaves what was said before."""
    metrics: dict[str, float] | None = None
    artifact: ArtifactSummary | None = None
    requeue_after: timedelta | None = None
