"""A job of an hour with six faults loses little of its time to them."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from posttrain_contract import layout
from posttrain_contract.progress import read_history
from support.pipeline import Pipeline, command_line
from support.waiting import wait_for

HOUR: Final = 3600.0
FINETUNE: Final = "2-finetune.yaml"
KIND: Final = "FineTuneJob"
SUPERVISOR: Final = "-m posttrain_finetune --config"
RANK: Final = "-m posttrain_finetune.rank"


@pytest.mark.slow
@pytest.mark.timeout(2 * HOUR)
def test_an_hour_with_six_faults_is_productive_for_nine_tenths(pipeline: Pipeline) -> None:
    pipeline.keep("1-filter.yaml", FINETUNE)
    seconds = _seconds_of_a_step(pipeline)
    steps = round(HOUR / seconds)
    _train(pipeline, steps=steps, checkpoint_every=round(30 / seconds))
    pipeline.start()
    for number, fault in enumerate(FAULTS, start=1):
        moment = number * steps // (len(FAULTS) + 1)
        wait_for(lambda: pipeline.step(KIND) >= moment or pipeline.ended, f"step {moment}", seconds=HOUR)  # noqa: B023
        attempts = len(pipeline.status(KIND)["attempts"])
        fault(pipeline)
        wait_for(lambda: len(pipeline.status(KIND)["attempts"]) > attempts, "the next attempt", seconds=150)  # noqa: B023
    assert pipeline.wait(seconds=HOUR) == 0, pipeline.messages[-4000:]
    status = pipeline.status(KIND)
    told = [(attempt["outcome"], attempt.get("reason")) for attempt in status["attempts"]]
    assert len(told) == len(FAULTS) + 1, told
    assert status["metrics"]["goodput"] >= 0.9, (told, status["metrics"])


def _train(pipeline: Pipeline, *, steps: int, checkpoint_every: int) -> None:
    """Batches that take a good part of a second, so that steps are what the time goes to."""
    training = {"maxSteps": steps, "batchSize": 512, "learningRate": 1e-3, "maxLength": 128, "precision": "fp32"}
    run: dict[str, Any] = {"retries": 10}
    checkpoints = {"everySteps": checkpoint_every}
    alone = {"nodes": 1}
    pipeline.change(FINETUNE, training=training, distributed=alone, checkpoints=checkpoints, evaluation=None, run=run)


def _seconds_of_a_step(pipeline: Pipeline) -> float:
    """Measured in a short run, which is then forgotten."""
    _train(pipeline, steps=30, checkpoint_every=30)
    assert pipeline.run(seconds=600) == 0, pipeline.messages[-4000:]
    (folder,) = [folder for folder in pipeline.run_folders() if folder.parent.name == KIND.lower()]
    taken = sorted(read_history(folder / layout.METRICS)["stepSeconds"].values())
    pipeline.begin_anew()
    return taken[len(taken) // 2]


def _process(pipeline: Pipeline, words: str) -> psutil.Process:
    (found,) = [process for process in pipeline.processes() if words in command_line(process)]
    return found


def _kill_the_rank(pipeline: Pipeline) -> None:
    _process(pipeline, RANK).kill()


def _kill_the_pod(pipeline: Pipeline) -> None:
    supervisor = _process(pipeline, SUPERVISOR)
    for process in [supervisor, *supervisor.children(recursive=True)]:
        process.kill()


def _preempt(pipeline: Pipeline) -> None:
    _process(pipeline, SUPERVISOR).send_signal(signal.SIGTERM)


def _hang(pipeline: Pipeline) -> None:
    _process(pipeline, RANK).suspend()


def _damage_the_newest_checkpoint(pipeline: Pipeline) -> None:
    newest = max(pipeline.claim.rglob(f"{layout.CHECKPOINTS}/checkpoint-*/{layout.COMPLETE}"), key=_step).parent
    weights = newest / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    _kill_the_rank(pipeline)


def _step(marker: Path) -> int:
    return int(marker.parent.name.rpartition("-")[2])


FAULTS: Final[tuple[Callable[[Pipeline], None], ...]] = (
    _kill_the_rank,
    _preempt,
    _damage_the_newest_checkpoint,
    _hang,
    _kill_the_pod,
    _kill_the_rank,
)
"""Once each in a job, in this order."""
