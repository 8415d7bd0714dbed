"""What the report shows of each stage, read from its run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.artifact import InputEntry, Manifest
from posttrain_contract.metrics import (
    EXACT_MATCH,
    GOODPUT,
    GRADIENT_NORM,
    LEARNING_RATE,
    LOSS,
    MFU,
    PERPLEXITY,
    REWARD,
    TOKENS_PER_SECOND,
)
from posttrain_contract.progress import SampleLine, read_history, read_lines
from pydantic import ValidationError

from posttrain.stages import Stage

_FIRST_CURVES = (LOSS, REWARD, EXACT_MATCH, PERPLEXITY, LEARNING_RATE, GRADIENT_NORM, TOKENS_PER_SECOND, MFU, GOODPUT)
_MOST_CURVES = 12
_MOST_SAMPLES = 6
_LONGEST_TEXT = 1500


@dataclass(frozen=True)
class Curve:
    """One figure over the optimizer steps."""

    name: str
    points: tuple[tuple[int, float], ...]
    """Step and value, in the order of steps."""


@dataclass(frozen=True)
class Answer:
    """What a model answered at one step."""

    step: int
    completion: str
    correct: bool


@dataclass(frozen=True)
class Sample:
    """One held-out task, answered before training and after it."""

    prompt: str
    gold: str
    before: Answer
    after: Answer


@dataclass(frozen=True)
class StageReport:
    """One stage with everything that its run folder tells."""

    stage: Stage
    inputs: Mapping[str, InputEntry]
    """What its artifact was made from, by the field's path."""
    curves: tuple[Curve, ...]
    samples: tuple[Sample, ...]


def gather(stages: Sequence[Stage]) -> list[StageReport]:
    """Reads the run folders; what is missing or broken in them is left out."""
    return [
        StageReport(
            stage=stage,
            inputs=_inputs(stage),
            curves=tuple(read_curves(stage.folder / layout.METRICS)),
            samples=tuple(read_samples(stage.folder / layout.SAMPLES)),
        )
        for stage in stages
    ]


def _inputs(stage: Stage) -> Mapping[str, InputEntry]:
    """The lineage in the artifact's manifest, else the inputs that the status names."""
    try:
        return Manifest.model_validate_json((stage.folder / layout.MANIFEST).read_bytes()).inputs
    except (OSError, ValidationError):
        return {name: InputEntry(uri=entry.uri, digest=entry.digest) for name, entry in stage.status.inputs.items()}


def read_curves(path: Path) -> list[Curve]:
    """The figures of a history with at least two steps, the important ones first; at most twelve."""
    figures = read_history(path)
    names = [name for name in figures if len(figures[name]) > 1]
    ranks = {name: rank for rank, name in enumerate(_FIRST_CURVES)}
    names.sort(key=lambda name: (ranks.get(name, len(ranks)), name))
    return [Curve(name, tuple(figures[name].items())) for name in names[:_MOST_CURVES]]


def read_samples(path: Path) -> list[Sample]:
    """Tasks that were answered at two steps or more, with the first and the last answer; at most six.

    Tasks whose correctness changed come first. Long texts are cut.
    """
    answers: dict[tuple[str, str], dict[int, Answer]] = {}
    for line in read_lines(path, SampleLine):
        answer = Answer(line.step, _cut(line.completion), line.correct)
        answers.setdefault((line.prompt, line.gold), {})[line.step] = answer
    samples = [
        Sample(_cut(prompt), _cut(gold), before=steps[min(steps)], after=steps[max(steps)])
        for (prompt, gold), steps in answers.items()
        if len(steps) > 1
    ]
    samples.sort(key=lambda sample: sample.before.correct == sample.after.correct)
    return samples[:_MOST_SAMPLES]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"
