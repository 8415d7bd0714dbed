"""Objects with a status, as a run leaves them, and run folders with what stages write there."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout

Json = dict[str, Any]

BEGAN, ENDED = "2026-05-01T10:00:00Z", "2026-05-01T10:01:15Z"


def _condition(kind: str, *, holds: bool, reason: str, message: str) -> Json:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": BEGAN,
        "observedGeneration": 1,
    }


@pytest.fixture
def make_object() -> Callable[..., Json]:
    """Makes an object in a phase."""

    def make(
        title: str, phase: str, *, reason: str = "", message: str = "", spec: Json | None = None, **more: Any
    ) -> Json:
        kind, name = title.split("/")
        holding = {"Ready": phase == "Succeeded", "Succeeded": phase == "Succeeded", "Failed": phase == "Failed"}
        conditions = [
            _condition(what, holds=holds, reason=reason or phase, message=message) for what, holds in holding.items()
        ]
        return {
            "apiVersion": "posttrain.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "default", "uid": f"{name}-uid"},
            "spec": spec or {},
            "status": {"phase": phase, "conditions": conditions, **more},
        }

    return make


@pytest.fixture
def pipeline(make_object: Callable[..., Json]) -> list[Json]:
    """A finished pipeline of three objects."""
    times = {"startTime": BEGAN, "completionTime": ENDED}

    def artifact(kind: str, **more: int) -> Json:
        return {"uri": "pvc://posttrain/x", "digest": "ab" * 32, "type": kind, "bytes": 4096, **more}

    return [
        make_object(
            "FilterJob/hard",
            "Succeeded",
            metrics={"rowsRead": 3000, "rowsKept": 1200, "keptPercent": 40.0},
            artifact=artifact("dataset", rows=1200),
            **times,
        ),
        make_object(
            "FineTuneJob/sft",
            "Succeeded",
            spec={"model": {"uri": "pvc://posttrain/base"}},
            metrics={"firstLoss": 5.5, "loss": 0.031, "exactMatchBefore": 0.0, "exactMatch": 0.452},
            artifact=artifact("model", parameters=152_064),
            attempts=[
                {"number": 1, "startTime": BEGAN, "endTime": ENDED, "outcome": "Preempted", "exitCode": 143},
                {
                    "number": 2,
                    "startTime": BEGAN,
                    "endTime": ENDED,
                    "outcome": "Succeeded",
                    "exitCode": 0,
                    "resumedFrom": "checkpoint-100",
                },
            ],
            inputs={"model": {"uri": "pvc://posttrain/base"}, "dataset": {"uri": "pvc://p/hard", "digest": "cd" * 32}},
            **times,
        ),
        make_object(
            "RLJob/grpo",
            "Succeeded",
            spec={"model": {"from": "FineTuneJob/sft"}},
            metrics={"reward": 0.93, "exactMatchBefore": 0.452, "exactMatch": 0.94},
            artifact=artifact("model", parameters=152_064),
            **times,
        ),
    ]


@pytest.fixture
def write_history() -> Callable[[Path, Sequence[tuple[int, Mapping[str, float]]]], None]:
    """Writes the figures of a run: steps with their values, in the order of the lines."""

    def write(run_folder: Path, steps: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        path = run_folder / layout.METRICS
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"step": step, "metrics": figures}) for step, figures in steps]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return write


@pytest.fixture
def write_samples() -> Callable[[Path, Sequence[Json]], None]:
    """Writes held-out samples."""

    def write(run_folder: Path, samples: Sequence[Json]) -> None:
        path = run_folder / layout.SAMPLES
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")

    return write
