"""An object after its run, as people look at it: what it is called, how it went, what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from posttrain_contract import layout
from posttrain_contract.metrics import EXACT_MATCH, EXACT_MATCH_BEFORE
from posttrain_operator.api.status import Condition, Status, read_status
from posttrain_operator.cluster import Json


@dataclass(frozen=True)
class Stage:
    """One object with its status."""

    kind: str
    namespace: str
    title: str
    """KIND/NAME."""
    status: Status
    model_source: str | None
    """The object whose model it starts from, as KIND/NAME."""
    folder: Path
    """Its run folder on this machine."""

    @property
    def phase(self) -> str:
        """One word for people."""
        return self.status.phase or "Pending"

    @property
    def succeeded(self) -> bool:
        """Whether its artifact is published."""
        return self.status.holds("Succeeded")

    @property
    def condition(self) -> Condition | None:
        """The condition that says why it is in its phase."""
        return self.status.condition("Ready")

    @property
    def why(self) -> str:
        """Reason and message in one line."""
        condition = self.condition
        if condition is None:
            return ""
        return f"{condition.reason}: {condition.message}" if condition.message else condition.reason

    @property
    def duration(self) -> timedelta | None:
        """From its first attempt to its end, pauses between attempts included; None while it runs."""
        start, end = self.status.start_time, self.status.completion_time
        return None if start is None or end is None else end - start

    @property
    def artifact(self) -> Path | None:
        """The folder of its artifact, once that is published."""
        return self.folder / layout.ARTIFACT if self.status.artifact is not None else None


def read_stage(obj: Json, folder: Path) -> Stage:
    """The stage in an object; a status that cannot be read counts as none."""
    metadata = obj["metadata"]
    return Stage(
        kind=obj["kind"],
        namespace=metadata.get("namespace", "default"),
        title=f"{obj['kind']}/{metadata['name']}",
        status=read_status(obj.get("status")),
        model_source=_model_source(obj.get("spec")),
        folder=folder,
    )


def _model_source(spec: Any) -> str | None:
    model = spec.get("model") if isinstance(spec, Mapping) else None
    source = model.get("from") if isinstance(model, Mapping) else None
    return source if isinstance(source, str) else None


@dataclass(frozen=True)
class Score:
    """A share of held-out tasks solved, 0 to 1, at one point of a pipeline."""

    label: str
    value: float


def exact_match_scores(stages: Sequence[Stage]) -> list[Score]:
    """Held-out exact match along the pipeline: before training, and after each stage that trains a model.

    The score before a stage is left out where it is the score after the stage that its model comes from.
    """
    scored = {stage.title for stage in stages if EXACT_MATCH in stage.status.metrics}
    beginnings = [s for s in stages if EXACT_MATCH_BEFORE in s.status.metrics and s.model_source not in scored]
    scores = []
    for stage in stages:
        if stage in beginnings:
            label = "before training" if len(beginnings) == 1 else f"before {stage.title}"
            scores.append(Score(label, stage.status.metrics[EXACT_MATCH_BEFORE]))
        if EXACT_MATCH in stage.status.metrics:
            scores.append(Score(f"after {stage.title}", stage.status.metrics[EXACT_MATCH]))
    return scores


def short_time(span: timedelta) -> str:
    """A time span for people, such as 45s, 3m 20s or 2h 05m."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"


def printable(text: str) -> str:
    """The text in one line, without characters that could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def number(value: float) -> str:
    """A figure for people: whole numbers with thousands separators, others with four digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
