"""Fine-tuning by two processes: what is split among them does not change what is learned."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.result import StageResult
from safetensors.numpy import load_file
from support.stages import run_stage_process
from support.tiny import finetune_config, history, mount, run_folder

KIND = "FineTuneJob"
STEPS = 6
GANG = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2"}

pytestmark = pytest.mark.timeout(300)


def artifact(root: Path) -> Path:
    return run_folder(root, KIND) / layout.ARTIFACT


def losses(root: Path) -> list[float]:
    return [figures["loss"] for step, figures in sorted(history(root, KIND).items()) if "loss" in figures]


def run(root: Path, inputs: Path, strategy: str, **spec: Any) -> StageResult:
    config = finetune_config(
        steps=STEPS,
        distributed={"processesPerNode": 2, "strategy": strategy, **spec.pop("distributed", {})},
        checkpoints={"everySteps": 3, "keep": 2},
        **{"training": {"batchSize": 4}, **spec},
    )
    return run_stage_process(config, root if root.exists() else mount(root, inputs), env=GANG)


@pytest.fixture(scope="module")
def alone(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in one process."""
    root = mount(tmp_path_factory.mktemp("gang") / "alone", tiny_inputs)
    assert run_stage_process(finetune_config(steps=STEPS), root).outcome == "Succeeded"
    return root


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero1", marks=pytest.mark.slow), "zero2", "zero3", "fsdp2"])
def test_every_strategy_learns_the_same(alone: Path, tiny_inputs: Path, tmp_path: Path, strategy: str) -> None:
    result = run(tmp_path / "run", tiny_inputs, strategy)
    assert result.outcome == "Succeeded", result.message
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=1e-4)
    ours, theirs = (load_file(artifact(root) / "model.safetensors") for root in (tmp_path / "run", alone))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4)
    assert history(tmp_path / "run", KIND)[STEPS]["exactMatch"] == history(alone, KIND)[STEPS]["exactMatch"]


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "alone"])
def test_an_adapter_over_weights_that_are_split_is_published(tiny_inputs: Path, tmp_path: Path, *, merge: bool) -> None:
    root = tmp_path / "run"
    adapter = {"lora": {"rank": 4, "alpha": 8, "targetModules": "q_proj, v_proj"}}
    result = run(root, tiny_inputs, "zero3", adapter=adapter, export={"merge": merge}, evaluation=None)
    assert result.outcome == "Succeeded", result.message
    base = load_file(tiny_inputs / "base-model" / "model.safetensors")
    if merge:
        tuned = load_file(artifact(root) / "model.safetensors")
        assert {name: tensor.shape for name, tensor in tuned.items()} == {name: base[name].shape for name in base}
        changed = {name for name in base if (base[name] != tuned[name]).any()}
        assert changed == {name for name in base if "q_proj" in name or "v_proj" in name}
    else:
        saved = load_file(artifact(root) / "adapter_model.safetensors")
        assert any(tensor.any() for name, tensor in saved.items() if "lora_B" in name)


def test_a_split_run_that_died_after_its_last_step_publishes_without_another_step(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    assert run(root, tiny_inputs, "zero3").outcome == "Succeeded"
    first = load_file(artifact(root) / "model.safetensors")
    shutil.rmtree(artifact(root))
    (run_folder(root, KIND) / layout.MANIFEST).unlink()
    result = run(root, tiny_inputs, "zero3")
    assert result.outcome == "Succeeded", result.message
    assert result.resumed_from == f"checkpoint-{STEPS}"
    second = load_file(artifact(root) / "model.safetensors")
    assert all((first[name] == second[name]).all() for name in first)
