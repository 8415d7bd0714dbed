"""Every method, adapter and memory saver of fine-tuning, through the stage program on a tiny model."""

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.preference import DpoLoss
from posttrain_contract.result import StageResult
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import read_manifest
from safetensors.numpy import load_file
from support.stages import run_stage_process
from support.tiny import context_in_process, finetune_config, history, mount, run_folder, write_pairs

KIND = "FineTuneJob"
STEPS = 4
ROWS = 6
PAIRS = "pairs.jsonl"
LORA = {"rank": 4, "alpha": 8, "targetModules": "q_proj, v_proj"}

pytestmark = pytest.mark.timeout(300)


def artifact(root: Path) -> Path:
    return run_folder(root, KIND) / layout.ARTIFACT


def losses(root: Path) -> list[float]:
    return [figures["loss"] for step, figures in sorted(history(root, KIND).items()) if "loss" in figures]


def changed(base: Path, tuned: Path) -> set[str]:
    """The tensors that are not what they were; the two models have the same."""
    before, after = load_file(base / "model.safetensors"), load_file(tuned / "model.safetensors")
    assert before.keys() == after.keys()
    return {name for name in before if (before[name] != after[name]).any()}


def run(root: Path, inputs: Path, **spec: Any) -> StageResult:
    mount(root, inputs)
    return run_stage_process(finetune_config(steps=STEPS, **{"evaluation": None, **spec}), root)


def run_dpo(root: Path, inputs: Path, **spec: Any) -> StageResult:
    write_pairs(mount(root, inputs) / PAIRS, inputs)
    dataset = {"uri": "pvc://posttrain/any", "format": "preference"}
    config = finetune_config(
        steps=STEPS, dataset_path=PAIRS, method="dpo", dataset=dataset, **{"evaluation": None, **spec}
    )
    return run_stage_process(config, root)


TRAININGS: dict[str, dict[str, Any]] = {
    "full gradient checkpointing": {"gradientCheckpointing": "full"},
    "selective gradient checkpointing": {"gradientCheckpointing": "selective"},
    "8-bit Adam": {"optimizer": "adamw_bnb_8bit", "weightDecay": 0.1},
    "eager attention": {"attention": "eager"},
}


@pytest.fixture(scope="module")
def plain(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with nothing special."""
    root = tmp_path_factory.mktemp("methods") / "plain"
    assert run(root, tiny_inputs).outcome == "Succeeded"
    return root


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS.keys())
def test_what_saves_memory_or_time_does_not_change_the_training(
    plain: Path, tiny_inputs: Path, tmp_path: Path, training: dict[str, Any]
) -> None:
    result = run(tmp_path / "run", tiny_inputs, training=training)
    assert result.outcome == "Succeeded", result.message
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=1e-3)


def test_rows_that_are_packed_do_not_see_each_other(tiny_inputs: Path, tmp_path: Path) -> None:
    """The first loss is the mean over all tokens, so it is the same as that of the rows one by one, and only then."""
    lines = (tiny_inputs / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    first = {}
    for name, training in {
        "one by one": {"batchSize": ROWS},
        "packed": {"batchSize": 1, "packing": True, "maxLength": 1024},
    }.items():
        root = mount(tmp_path / name, tiny_inputs)
        (root / "few.jsonl").write_text("".join(lines[:ROWS]), encoding="utf-8")
        config = finetune_config(steps=1, evaluation=None, dataset_path="few.jsonl", training=training)
        assert run_stage_process(config, root).outcome == "Succeeded"
        first[name] = history(root, KIND)[1]
    assert first["packed"]["tokens"] == first["one by one"]["tokens"], "all rows are in one"
    assert first["packed"]["loss"] == pytest.approx(first["one by one"]["loss"], rel=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_on_a_quantized_model_is_merged_into_the_model_as_it_was_read(
    tiny_inputs: Path, tmp_path: Path, quantization: str
) -> None:
    root = tmp_path / "run"
    result = run(root, tiny_inputs, adapter={"lora": LORA, "quantization": quantization})
    assert result.outcome == "Succeeded", result.message
    assert result.metrics["loss"] > 0
    tuned = changed(tiny_inputs / "base-model", artifact(root))
    assert tuned
    assert all("q_proj" in name or "v_proj" in name for name in tuned)
    assert "quantization_config" not in json.loads((artifact(root) / "config.json").read_text(encoding="utf-8"))


def test_the_variants_of_lora_are_what_the_adapter_says(tiny_inputs: Path, tmp_path: Path) -> None:
    adapter = {"lora": {**LORA, "rsLora": True, "dora": True, "dropout": 0.1}}
    result = run(tmp_path / "run", tiny_inputs, adapter=adapter, export={"merge": False})
    assert result.outcome == "Succeeded", result.message
    said = json.loads((artifact(tmp_path / "run") / "adapter_config.json").read_text(encoding="utf-8"))
    assert (said["use_rslora"], said["use_dora"], said["lora_dropout"]) == (True, True, 0.1)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("modules", "told"),
    [
        ("lm_head", "adapter to `lm_head` is not supported"),
        ("input_layernorm", "is not supported"),
        ("q_porj", "the model has no module q_porj; its linear ones are down_proj, gate_proj, "),
        ("q_proj, v_porj", "the model has no module v_porj; "),
    ],
)
def test_modules_that_cannot_be_adapted_are_named(tiny_inputs: Path, tmp_path: Path, modules: str, told: str) -> None:
    from posttrain_finetune.rank import work

    config = finetune_config(steps=1, evaluation=None, adapter={"lora": {"targetModules": modules}})
    with pytest.raises(StageError) as caught:
        work(context_in_process(config, mount(tmp_path / "run", tiny_inputs)))
    assert (caught.value.code, caught.value.reason) == (ExitCode.MODEL, "TargetModulesMissing")
    assert caught.value.message.startswith("spec.adapter.lora.targetModules: ")
    assert told in caught.value.message


def test_an_adapter_can_be_trained_further(tiny_inputs: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert run(first, tiny_inputs, adapter={"lora": LORA}, export={"merge": False}).outcome == "Succeeded"
    second = mount(tmp_path / "second", tiny_inputs)
    (second / "adapter").symlink_to(artifact(first))
    config = finetune_config(
        steps=STEPS,
        evaluation=None,
        adapter={"initial": {"uri": "pvc://posttrain/any"}},
        export={"merge": False},
        further_inputs={"adapter.initial": "adapter"},
    )
    assert run_stage_process(config, second).outcome == "Succeeded"
    assert losses(second)[0] < losses(first)[0]
    before, after = (load_file(artifact(root) / "adapter_model.safetensors") for root in (first, second))
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_folder_without_an_adapter_cannot_be_gone_on_from(tiny_inputs: Path, tmp_path: Path) -> None:
    config = finetune_config(
        steps=STEPS,
        evaluation=None,
        adapter={"initial": {"uri": "pvc://posttrain/any"}},
        further_inputs={"adapter.initial": "inputs/base-model"},
    )
    root = mount(tmp_path / "run", tiny_inputs)
    result = run_stage_process(config, root)
    assert (result.exit_code, result.reason) == (ExitCode.MODEL, "AdapterBroken")
    assert "spec.adapter.initial: base-model has no adapter_config.json" in result.message
    assert not (root / "store" / "test" / layout.PREPARED).exists(), "it was seen before anything was done"


@pytest.mark.parametrize("adapter", [None, {"lora": LORA}], ids=["all weights", "an adapter"])
def test_preferences_move_the_model_to_the_better_answers(
    tiny_inputs: Path, tmp_path: Path, adapter: dict[str, Any] | None
) -> None:
    root = tmp_path / "run"
    result = run_dpo(root, tiny_inputs, adapter=adapter)
    assert result.outcome == "Succeeded", result.message
    assert losses(root)[0] == pytest.approx(0.6931, abs=1e-3), "at first the model is the reference"
    assert losses(root)[-1] < losses(root)[0]
    figures = history(root, KIND)[STEPS]
    assert figures["rewardMargin"] > 0
    assert 0 <= figures["preferenceAccuracy"] <= 1
    assert_nothing_was_added_to_the_rows(root)


def assert_nothing_was_added_to_the_rows(root: Path) -> None:
    """Prepared rows are published and shared: no run writes anything beside them."""
    (prepared,) = (run_folder(root, KIND).parent.parent / layout.PREPARED).iterdir()
    manifest = read_manifest(prepared)
    assert manifest is not None
    assert {path.name for path in (prepared / layout.ARTIFACT).iterdir()} == {entry.path for entry in manifest.files}


BETA, SMOOTHING = 0.5, 0.2
LN2 = math.log(2)
FIRST_LOSSES: dict[str, float] = {
    "sigmoid": LN2,
    "sigmoid_norm": LN2,
    "robust": LN2,
    "hinge": 1,
    "ipo": (1 / (2 * BETA)) ** 2,
    "exo_pair": -LN2 - (math.log(SMOOTHING) + math.log(1 - SMOOTHING)) / 2,
    "nca_pair": 2 * LN2,
    "apo_zero": 1,
    "apo_down": 1,
}
"""By the papers' formulas, where the model still is the reference: both answers are as likely as before."""


def test_every_loss_of_the_contract_is_tried() -> None:
    assert set(FIRST_LOSSES) == set(get_args(DpoLoss))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("loss", FIRST_LOSSES)
def test_the_loss_of_the_preferences_can_be_chosen(tiny_inputs: Path, tmp_path: Path, loss: str) -> None:
    from posttrain_finetune.rank import work

    root = mount(tmp_path / "run", tiny_inputs)
    write_pairs(root / PAIRS, tiny_inputs, count=16)
    smoothing = {"labelSmoothing": SMOOTHING} if loss in ("robust", "exo_pair") else {}
    config = finetune_config(
        steps=1,
        dataset_path=PAIRS,
        method="dpo",
        dataset={"uri": "pvc://posttrain/any", "format": "preference"},
        dpo={"loss": loss, "beta": BETA, **smoothing},
        evaluation=None,
    )
    assert work(context_in_process(config, root)).metrics["steps"] == 1
    assert losses(root)[0] == pytest.approx(FIRST_LOSSES[loss], abs=1e-3)
