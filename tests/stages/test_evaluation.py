"""Evaluation while training: the best step is published, also after a crash, and wrong wishes are refused."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.store import read_manifest
from safetensors.numpy import load_file
from support.processes import children
from support.stages import run_stage_process, start_stage_process
from support.tiny import TRAIN_ROWS, finetune_config, history, mount, run_folder, steps_done
from support.waiting import wait_for

KIND = "FineTuneJob"
STEPS = 24
TASKS = {"uri": "pvc://posttrain/any", "columns": {"prompt": "problem", "answer": "answer"}}
GENERATE = {"dataset": TASKS, "maxNewTokens": 16}

pytestmark = pytest.mark.timeout(300)  # a start takes seconds of two cores, and some tests start twice


def config(attempt: int = 1, **evaluation: Any) -> Any:
    return finetune_config(
        steps=STEPS,
        attempt=attempt,
        checkpoints={"everySteps": 6, "keep": 1},
        evaluation={"everySteps": 4, "generate": GENERATE, **evaluation},
    )


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def test_the_best_step_is_published_though_the_run_was_killed_after_it(tiny_inputs: Path, tmp_path: Path) -> None:
    root = mount(tmp_path / "best", tiny_inputs)
    stage = start_stage_process(config(keepBest="exactMatch"), root)
    wait_for(lambda: steps_done(root, KIND) >= 14, "14 steps")
    (rank,) = children(stage.process.pid)
    os.kill(rank, signal.SIGKILL)
    assert stage.wait().exit_code is ExitCode.KILLED
    result = run_stage_process(config(attempt=2, keepBest="exactMatch"), root)
    assert result.outcome == "Succeeded"
    scores = {step: line["exactMatch"] for step, line in history(root, KIND).items() if "exactMatch" in line and step}
    best = next(step for step in sorted(scores) if scores[step] == max(scores.values()))
    assert list(scores) == [4, 8, 12, 16, 20, 24]
    assert result.metrics["bestStep"] == best
    assert result.metrics["steps"] == STEPS
    assert result.metrics["exactMatch"] == scores[best]
    folder, artifact = run_folder(root, KIND) / layout.CHECKPOINTS, run_folder(root, KIND) / layout.ARTIFACT
    assert {path.name for path in folder.iterdir()} == {f"checkpoint-{best}", f"checkpoint-{STEPS}"}
    assert same(artifact, folder / f"checkpoint-{best}")
    assert best == STEPS or not same(artifact, folder / f"checkpoint-{STEPS}")


@pytest.mark.parametrize("strategy", ["zero2"])
def test_a_gang_publishes_its_best_step(tiny_inputs: Path, tmp_path: Path, strategy: str) -> None:
    root = mount(tmp_path / "gang", tiny_inputs)
    wanted = finetune_config(
        steps=8,
        training={"batchSize": 4},
        distributed={"processesPerNode": 2, "strategy": strategy},
        checkpoints={"everySteps": 100, "keep": 1},
        evaluation={"everySteps": 4, "generate": GENERATE, "keepBest": "exactMatch"},
    )
    result = run_stage_process(wanted, root, env={"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2"})
    assert result.outcome == "Succeeded", result.message
    folder, artifact = run_folder(root, KIND) / layout.CHECKPOINTS, run_folder(root, KIND) / layout.ARTIFACT
    best = int(result.metrics["bestStep"])
    assert best in (4, 8)
    assert same(artifact, folder / f"checkpoint-{best}")
    assert best == 8 or not same(artifact, folder / "checkpoint-8")


def test_perplexity_is_of_rows_that_are_not_trained_on(tiny_inputs: Path, tmp_path: Path) -> None:
    root = mount(tmp_path / "perplexity", tiny_inputs)
    dataset = {"uri": "pvc://posttrain/any", "columns": {"prompt": "problem", "completion": "solution"}}
    wanted = finetune_config(
        steps=8, dataset={**dataset, "validation": 0.25, "shuffleSeed": 1}, evaluation={"perplexity": True}
    )
    result = run_stage_process(wanted, root)
    assert result.outcome == "Succeeded", result.message
    assert 1 < result.metrics["perplexity"] < result.metrics["perplexityBefore"]
    prepared = [read_manifest(folder) for folder in (run_folder(root, KIND).parents[1] / layout.PREPARED).iterdir()]
    assert sorted(manifest.rows or 0 for manifest in prepared if manifest) == [TRAIN_ROWS // 4, TRAIN_ROWS * 3 // 4]
