"""What the operator itself can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

STAGES = ("filter", "finetune", "rl", "serve", "upload")


def _default_images() -> dict[str, str]:
    return {stage: f"ghcr.io/posttrain/{stage}:0.1.0" for stage in STAGES}


@dataclass(frozen=True)
class Settings:
    """The operator's own knobs; the same for every object."""

    images: Mapping[str, str] = field(default_factory=_default_images)
    """Image of each stage, unless ``run.image`` names another."""

    hub_endpoint: str | None = None
    """URL of the Hub that UploadJobs publish to; None: they only make the folder in the Hub's layout."""

    file_uris: bool = False
    """Whether ``file://`` inputs are allowed; only the local executor allows them."""

    progress_interval: timedelta = timedelta(seconds=10)
    """How often the progress of a running attempt is read."""

    first_backoff: timedelta = timedelta(seconds=10)
    """Pause before the second attempt; it doubles with every further failure."""

    longest_backoff: timedelta = timedelta(minutes=10)
    """Upper bound of the pause between attempts."""

    termination_grace: timedelta = timedelta(minutes=5)
    """Time that a pod has between SIGTERM and SIGKILL, for saving a checkpoint."""
