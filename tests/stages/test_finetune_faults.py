"""Training under faults: whatever is killed or damaged, the next attempt ends as if nothing had happened."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import checkpoints
from safetensors.numpy import load_file, save_file
from support.faulty_training import KIND, STEPS, assert_as_if_undisturbed, config, saved
from support.stages import run_stage_process, start_stage_process
from support.tiny import mount, run_folder, steps_done, write_jsonl
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)  # a start takes seconds of two cores, and some tests start twice


@pytest.fixture(scope="module")
def undisturbed(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mount root of a run that nothing disturbed."""
    root = mount(tmp_path_factory.mktemp("faults") / "undisturbed", tiny_inputs)
    assert run_stage_process(config(), root).outcome == "Succeeded"
    return root


@pytest.fixture(scope="module")
def preempted(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped when it had two checkpoints at least."""
    root = mount(tmp_path_factory.mktemp("faults") / "preempted", tiny_inputs)
    stage = start_stage_process(config(), root)
    wait_for(lambda: steps_done(root, KIND) >= 12, "12 steps")
    stage.process.send_signal(signal.SIGTERM)
    assert stage.wait().exit_code is ExitCode.PREEMPTED
    return root


@pytest.fixture
def spoiled(preempted: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, for a test to spoil."""
    return shutil.copytree(preempted, tmp_path / "copy", symlinks=True)


def truncate(checkpoint: Path) -> None:
    with (checkpoint / "optimizer.pt").open("r+b") as file:
        file.truncate(100)


def flip(checkpoint: Path) -> None:
    """Changes one byte in the middle of the weights: a number is another one, and the file loads as before."""
    with (checkpoint / "model.safetensors").open("r+b") as file:
        middle = (checkpoint / "model.safetensors").stat().st_size // 2
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))


def unseal(checkpoint: Path) -> None:
    (checkpoint / layout.COMPLETE).unlink()


@pytest.mark.parametrize(
    "spoil", [pytest.param(truncate, marks=pytest.mark.slow), flip, pytest.param(unseal, marks=pytest.mark.slow)]
)
def test_a_broken_checkpoint_is_passed_over_and_told_and_the_run_ends_right(
    undisturbed: Path, spoiled: Path, spoil: Callable[[Path], None]
) -> None:
    newest, before, *_ = saved(spoiled)
    spoil(newest)
    result = run_stage_process(config(), spoiled)
    assert result.resumed_from == before.name
    assert result.message.startswith(f"{newest.name} is set aside: ")
    assert result.metrics["checkpointsSkipped"] == 1
    folder = run_folder(spoiled, KIND) / layout.CHECKPOINTS
    assert not list(folder.glob(f"*{newest.name}*")), "a damaged checkpoint is removed with the old ones"
    assert_as_if_undisturbed(spoiled, undisturbed)


def test_a_checkpoint_that_is_whole_but_cannot_be_loaded_costs_one_attempt(undisturbed: Path, spoiled: Path) -> None:
    newest, before, *_ = saved(spoiled)
    facts = checkpoints.read(newest)
    (newest / "optimizer.pt").write_bytes(b"no optimizer")
    checkpoints.seal(newest, step=facts.step, world_size=facts.world_size, config_digest=facts.config_digest)
    failed = run_stage_process(config(), spoiled)
    assert (failed.exit_code, failed.reason) == (ExitCode.STORAGE, "CheckpointUnreadable")
    assert f"{newest.name} is set aside: it cannot be loaded" in failed.message
    result = run_stage_process(config(), spoiled)
    assert result.resumed_from == before.name
    assert_as_if_undisturbed(spoiled, undisturbed)


POISON = "@"
"""A token that no row has."""


def poison(tiny_inputs: Path, root: Path) -> None:
    """A model that yields no number where it reads one token, and rows of which one has it."""
    shutil.copytree(tiny_inputs / "base-model", root / "poisoned")
    tensors = load_file(root / "poisoned/model.safetensors")
    tokenizer = json.loads((root / "poisoned/tokenizer.json").read_text(encoding="utf-8"))
    tensors["model.embed_tokens.weight"][tokenizer["model"]["vocab"][POISON]] = float("nan")
    save_file(tensors, root / "poisoned/model.safetensors", metadata={"format": "pt"})
    rows = [json.loads(line) for line in (tiny_inputs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[100]["problem"] += POISON
    write_jsonl(root / "rows.jsonl", rows)


def test_a_loss_that_is_no_number_is_tried_once_more_from_the_checkpoint_before_it(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    root = mount(tmp_path / "poisoned", tiny_inputs)
    poison(tiny_inputs, root)
    stage = config(model_path="poisoned", dataset_path="rows.jsonl", adapter={"lora": {"rank": 4}})
    first = run_stage_process(stage, root)
    assert (first.exit_code, first.reason) == (ExitCode.NOT_FINITE, "NotFinite")
    last = saved(root)[0]
    after = shutil.copytree(root, tmp_path / "after", symlinks=True)

    second = run_stage_process(stage, root)
    assert (second.exit_code, second.reason) == (ExitCode.DIVERGED, "Diverged")
    step = steps_done(root, KIND) + 1
    assert f"at step {step}, for the second time" in second.message
    assert saved(root)[0] == last, "nothing was saved since"

    # The same, but what was wrong in the first attempt is gone, as with other hardware.
    shutil.copy(tiny_inputs / "base-model" / "model.safetensors", after / "poisoned")
    repaired = run_stage_process(stage, after)
    assert (repaired.outcome, repaired.resumed_from) == ("Succeeded", last.name)
    assert repaired.metrics["steps"] == STEPS
