"""Training that is stopped, killed or hangs at any step: the next attempt ends with the very same numbers."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from support.faulty_training import (
    ENDLESS,
    GANG,
    INTERVAL,
    KIND,
    STEPS,
    Attempt,
    assert_as_if_undisturbed,
    assert_gone,
    config,
    losses,
    saved,
    step_of,
    two_processes,
    weights,
)
from support.stages import run_stage_process, start_stage_process
from support.tiny import mount, run_folder, write_pairs

pytestmark = pytest.mark.timeout(600)  # a start takes seconds of two cores, and these tests start often

FEW = 1
MANY = pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.fixture(scope="module")
def undisturbed(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mount root of a run that nothing disturbed."""
    root = mount(tmp_path_factory.mktemp("kills") / "undisturbed", tiny_inputs)
    assert run_stage_process(config(), root).outcome == "Succeeded"
    return root


def start(root: Path, stage: Any = None) -> Attempt:
    return Attempt(start_stage_process(stage or config(), root), root)


def preempt(attempt: Attempt) -> None:
    """Asks for a stop, as the kubelet does, and gets a checkpoint."""
    attempt.stage.process.send_signal(signal.SIGTERM)
    assert attempt.stage.wait().exit_code is ExitCode.PREEMPTED


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("stop", [preempt, Attempt.kill], ids=["SIGTERM", "SIGKILL"])
def test_a_run_that_is_stopped_at_random_steps_ends_as_if_it_had_not_been(
    undisturbed: Path, tiny_inputs: Path, tmp_path: Path, stop: Callable[[Attempt], None], count: int
) -> None:
    root = mount(tmp_path / "stopped", tiny_inputs)
    for step in sorted(random.Random(count).sample(range(2, STEPS - 20), count)):
        attempt = start(root)
        attempt.wait_for_step(step)
        stop(attempt)
    result = run_stage_process(config(), root)
    assert (result.outcome, result.metrics["steps"]) == ("Succeeded", STEPS)
    assert_as_if_undisturbed(root, undisturbed)


LORA = {"adapter": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.05}}}
ADAPTERS: dict[str, dict[str, Any]] = {
    "an adapter alone": {**LORA, "export": {"merge": False}},
    "an adapter that is merged": LORA,
    "preferences": {
        **LORA,
        "method": "dpo",
        "dataset": {"uri": "pvc://posttrain/any", "format": "preference"},
        "dataset_path": "pairs.jsonl",
    },
}


@pytest.mark.parametrize(
    "name", [name if not number else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(ADAPTERS)]
)
def test_an_adapter_whose_training_is_stopped_ends_as_if_it_had_not_been(
    tiny_inputs: Path, tmp_path: Path, name: str
) -> None:
    stage = config(steps=60, **ADAPTERS[name])
    undisturbed, root = (mount(tmp_path / which, tiny_inputs) for which in ("undisturbed", "stopped"))
    for folder in (undisturbed, root):
        write_pairs(folder / "pairs.jsonl", tiny_inputs)
    assert run_stage_process(stage, undisturbed).outcome == "Succeeded"
    attempt = start(root, stage)
    attempt.wait_for_step(2 * INTERVAL)
    preempt(attempt)
    stopped_at = saved(root)[0].name
    result = run_stage_process(stage, root)
    assert (result.outcome, result.resumed_from) == ("Succeeded", stopped_at)
    assert_as_if_undisturbed(root, undisturbed)


@pytest.mark.parametrize("count", [1, MANY])
def test_a_run_that_is_killed_while_it_saves_ends_as_if_it_had_not_been(
    undisturbed: Path, tiny_inputs: Path, tmp_path: Path, count: int
) -> None:
    root, source, hit = mount(tmp_path / "saving", tiny_inputs), random.Random(count), 0
    for _ in range(count):
        attempt = start(root)
        attempt.wait_for_save()
        time.sleep(source.uniform(0, 0.02))
        attempt.kill()
        hit += not (saved(root)[0] / layout.COMPLETE).exists()
    assert hit or count == 1, "no kill of many met a save"
    result = run_stage_process(config(), root)
    assert result.outcome == "Succeeded"
    assert result.metrics.get("checkpointsSkipped", 0) == hit
    assert_as_if_undisturbed(root, undisturbed)


def test_a_gang_of_which_one_process_is_asked_to_stop_saves_together(tiny_inputs: Path, tmp_path: Path) -> None:
    root = mount(tmp_path / "asked", tiny_inputs)
    attempt = Attempt(start_stage_process(two_processes(steps=ENDLESS), root, env=GANG), root)
    attempt.wait_for_step(INTERVAL + 1)
    os.kill(attempt.ranks[1], signal.SIGTERM)
    result = attempt.stage.wait()
    assert result.exit_code is ExitCode.PREEMPTED, result.message
    newest = saved(root)[0]
    assert (newest / layout.COMPLETE).exists()
    assert step_of(newest) == losses(root)[-1][0], "saved by both at the step that they agreed on"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [1, 20])
def test_a_lost_rank_ends_the_whole_attempt_and_costs_one_interval_at_most(
    tiny_inputs: Path, tmp_path: Path, count: int
) -> None:
    source = random.Random(count)
    undisturbed = mount(tmp_path / "undisturbed", tiny_inputs)
    assert run_stage_process(two_processes(), undisturbed, env=GANG).outcome == "Succeeded"
    root = mount(tmp_path / "lost", tiny_inputs)
    for step in sorted(source.sample(range(INTERVAL + 1, STEPS - 20), count)):
        attempt = Attempt(start_stage_process(two_processes(), root, env=GANG), root)
        attempt.wait_for_step(step)
        ranks = attempt.ranks
        os.kill(ranks[source.randrange(2)], signal.SIGKILL)
        lost = time.monotonic()
        result = attempt.stage.wait()
        assert time.monotonic() - lost < 30
        assert result.exit_code in (ExitCode.PEER_LOST, ExitCode.KILLED), result.message
        assert_gone(ranks.values())
    done = losses(root)[-1][0]
    complete = [path for path in saved(root) if (path / layout.COMPLETE).exists()]
    assert done - step_of(complete[0]) <= INTERVAL

    alone = run_stage_process(config(training={"batchSize": 4}), root)
    assert (alone.exit_code, alone.reason) == (ExitCode.DATA, "WorldSizeChanged")
    assert "was saved by 2 processes, this attempt has 1" in alone.message
    result = run_stage_process(two_processes(), root, env=GANG)
    assert result.resumed_from == complete[0].name
    assert_as_if_undisturbed(root, undisturbed)


@pytest.mark.slow
def test_more_processes_than_a_checkpoint_was_saved_by_are_refused_before_it_is_loaded(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    root = mount(tmp_path / "more", tiny_inputs)
    attempt = start(root)
    attempt.wait_for_step(INTERVAL + 1)
    preempt(attempt)
    before = [path.name for path in saved(root)]
    result = run_stage_process(two_processes(), root, env=GANG)
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "WorldSizeChanged")
    assert "was saved by 1 process, this attempt has 2" in result.message
    assert [path.name for path in saved(root)] == before


def test_a_stopped_rank_is_found_in_90_seconds_and_the_stacks_of_the_others_are_kept(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    root = mount(tmp_path / "stopped", tiny_inputs)
    # Without checkpoints: a rank that hangs while one is saved has longer, since others take longer to save.
    endless = two_processes(steps=ENDLESS, checkpoints={"everySteps": ENDLESS})
    attempt = Attempt(start_stage_process(endless, root, env=GANG), root)
    attempt.wait_for_step(50)
    ranks = attempt.ranks
    os.kill(ranks[1], signal.SIGSTOP)
    stopped = time.monotonic()
    result = attempt.stage.wait()
    assert time.monotonic() - stopped < 90
    assert (result.exit_code, result.reason) == (ExitCode.PEER_LOST, "Stalled")
    assert "rank 1 did not answer (state T (stopped))" in result.message
    stacks = (run_folder(root, KIND) / layout.LOGS / "stalled-1-0.txt").read_text(encoding="utf-8")
    assert f"rank 0, process {ranks[0]}" in stacks
    assert "in _inner_training_loop" in stacks
    assert_gone(ranks.values())


@pytest.mark.parametrize("count", [1, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_runs_that_nothing_disturbs_raise_no_alarm(tiny_inputs: Path, tmp_path: Path, count: int) -> None:
    digests = set()
    for number in range(count):
        root = mount(tmp_path / str(number), tiny_inputs)
        result = run_stage_process(two_processes(), root, env=GANG)
        assert result.outcome == "Succeeded", result.message
        assert not list((run_folder(root, KIND) / layout.LOGS).glob("stalled-*"))
        digests.add(weights(root))
    assert len(digests) == 1, "the same run ends with the same weights"
