"""The fine-tuning stage as a process: what it publishes, how it stops and goes on, what it says of bad input."""

import importlib.metadata
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_contract.stage import FineTuneStage, ResolvedInput
from posttrain_runtime import store
from posttrain_runtime.cards import README
from posttrain_runtime.store import damage, read_manifest
from safetensors.numpy import load_file
from support.processes import children, environment
from support.stages import page, phase, pod_address, run_stage_process, start_stage_process
from support.tiny import TRAIN_ROWS, finetune_config, history, mount, run_folder, steps_done, write_jsonl
from support.waiting import wait_for

KIND = "FineTuneJob"
STEPS = 60
GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
CHECKPOINTS = {"everySteps": 10, "keep": 3}

PAGES = {"progress.json": "/progress", "metrics.txt": "/metrics"}
"""What a run answers while it trains, by the file that it is kept in."""
MEASURES = ("loss", "learningRate", "gradientNorm", "tokensPerSecond", "samplesPerSecond", "dataWaitShare", "stepShare",
            "evaluationShare", "checkpointShare", "checkpointSeconds", "goodput")  # fmt: skip
"""Those that need no GPU."""

pytestmark = pytest.mark.timeout(300)  # a start takes seconds of two cores, and some tests start twice


def undisturbed_config(**spec: Any) -> Any:
    return finetune_config(steps=STEPS, checkpoints=CHECKPOINTS, **spec)


def artifact(root: Path) -> Path:
    return run_folder(root, KIND) / layout.ARTIFACT


def weights(root: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = load_file(artifact(root) / "model.safetensors")
    return tensors


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def learned(result: StageResult) -> dict[str, float]:
    """The figures that say what was learned, which are the same in every run; others depend on the clock."""
    names = ("steps", "loss", "firstLoss", "exactMatchBefore", "exactMatch")
    return {name: result.metrics[name] for name in names}


@pytest.fixture(scope="module")
def undisturbed(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """A run that nothing disturbed."""
    root = mount(tmp_path_factory.mktemp("sft") / "undisturbed", tiny_inputs)
    return root, run_stage_process(undisturbed_config(), root)


@pytest.fixture(scope="module")
def preempted(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """The same run, stopped after the checkpoint at step 20."""
    root, address = mount(tmp_path_factory.mktemp("sft") / "preempted", tiny_inputs), pod_address()
    stage = start_stage_process(undisturbed_config(), root, env={"POD_IP": address})
    wait_for(lambda: steps_done(root, KIND) >= 25, "25 steps")
    for name, path in PAGES.items():
        (root / name).write_text(page(address, path), encoding="utf-8")
    stage.process.send_signal(signal.SIGTERM)
    return root, stage.wait()


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a mount root, so that a test can spoil it."""
    return lambda root: shutil.copytree(root, tmp_path / "copy", symlinks=True)


def test_a_full_fine_tuning_publishes_a_model_that_loads(undisturbed: tuple[Path, StageResult]) -> None:
    root, result = undisturbed
    assert result.outcome == "Succeeded"
    assert result.metrics["steps"] == STEPS
    assert result.metrics["loss"] < result.metrics["firstLoss"]
    assert 0 <= result.metrics["exactMatchBefore"] <= 1
    assert 0 <= result.metrics["exactMatch"] <= 1
    manifest = read_manifest(run_folder(root, KIND))
    assert manifest is not None
    assert damage(run_folder(root, KIND), manifest, hashes=True) is None
    assert result.artifact is not None
    assert result.artifact.type == "model"

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(artifact(root))
    tokenizer = AutoTokenizer.from_pretrained(artifact(root))
    assert sum(parameter.numel() for parameter in model.parameters()) == result.artifact.parameters
    assert tokenizer.chat_template is not None
    assert model.generation_config.eos_token_id is not None


def test_every_step_is_in_the_history_and_samples_are_kept(undisturbed: tuple[Path, StageResult]) -> None:
    root, _ = undisturbed
    figures = history(root, KIND)
    assert [step for step in figures if "loss" in figures[step]] == list(range(1, STEPS + 1))
    assert {"gradientNorm", "learningRate"} <= figures[STEPS].keys()
    samples = (run_folder(root, KIND) / layout.SAMPLES).read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["step"] for line in samples} == {0, STEPS}


def test_what_the_steps_cost_is_measured(undisturbed: tuple[Path, StageResult]) -> None:
    root, result = undisturbed
    figures = history(root, KIND)
    last = figures[STEPS]
    assert last["tokensPerSecond"] > 0
    assert last["samplesPerSecond"] == pytest.approx(8 / (last["stepSeconds"] + last["dataSeconds"]))
    shares = [last[name] for name in ("dataWaitShare", "stepShare", "evaluationShare", "checkpointShare")]
    assert 0.5 < sum(shares) <= 1
    assert last["tokens"] > figures[STEPS - 1]["tokens"]
    assert "mfu" not in last, "the peak of a CPU is not known"
    assert {"tokensPerSecond", "samplesPerSecond", "checkpointSeconds", "dataWaitShare"} <= result.metrics.keys()
    assert 0 < result.metrics["goodput"] < 1


def test_tokens_and_goodput_cover_all_attempts(
    undisturbed: tuple[Path, StageResult], preempted: tuple[Path, StageResult], copy: Callable[[Path], Path]
) -> None:
    root = copy(preempted[0])
    result = run_stage_process(undisturbed_config(attempt=2), root)
    ours, theirs = history(root, KIND), history(undisturbed[0], KIND)
    assert {step: ours[step]["tokens"] for step in range(1, STEPS + 1)} == {
        step: theirs[step]["tokens"] for step in range(1, STEPS + 1)
    }
    lines = [json.loads(line) for line in (run_folder(root, KIND) / layout.METRICS).read_text("utf-8").splitlines()]
    productive = sum(ours[step]["stepSeconds"] for step in range(1, STEPS + 1))
    assert result.metrics["goodput"] == pytest.approx(productive / (lines[-1]["time"] - lines[0]["time"]), rel=0.1)


def test_only_the_weights_differ_from_the_model_that_was_tuned(
    undisturbed: tuple[Path, StageResult], tiny_inputs: Path
) -> None:
    base, tuned = tiny_inputs / "base-model", artifact(undisturbed[0])
    assert {path.name for path in base.iterdir()} | {README} == {path.name for path in tuned.iterdir()}
    for path in base.iterdir():
        assert (path.read_bytes() == (tuned / path.name).read_bytes()) is (path.suffix != ".safetensors"), path.name


def test_the_artifact_names_no_folder_of_this_machine(undisturbed: tuple[Path, StageResult]) -> None:
    root, _ = undisturbed
    for path in (*artifact(root).glob("*.json"), artifact(root) / README):
        assert str(root) not in path.read_text(encoding="utf-8"), path.name


def test_old_checkpoints_are_removed(undisturbed: tuple[Path, StageResult]) -> None:
    root, _ = undisturbed
    names = {path.name for path in (run_folder(root, KIND) / layout.CHECKPOINTS).iterdir()}
    assert names == {"checkpoint-40", "checkpoint-50", "checkpoint-60"}


def test_a_run_tells_what_it_costs_while_it_trains_and_in_its_result(
    preempted: tuple[Path, StageResult], undisturbed: tuple[Path, StageResult]
) -> None:
    progress = json.loads((preempted[0] / "progress.json").read_text(encoding="utf-8"))
    assert (progress["phase"], progress["totalSteps"]) == ("training", STEPS)
    assert progress["etaSeconds"] > 0
    assert set(MEASURES) <= progress["metrics"].keys()
    assert set(MEASURES) <= undisturbed[1].metrics.keys()
    assert 0 < undisturbed[1].metrics["stepShare"] < 1
    told = (preempted[0] / "metrics.txt").read_text(encoding="utf-8")
    assert [name for name in MEASURES if f'"{name}"' not in told] == []


def test_a_stop_request_saves_a_sealed_checkpoint_and_publishes_nothing(preempted: tuple[Path, StageResult]) -> None:
    root, result = preempted
    assert result.outcome == "Preempted"
    assert result.exit_code is ExitCode.PREEMPTED
    step = steps_done(root, KIND)
    assert 25 <= step < STEPS
    assert f"at step {step} after saving a checkpoint" in result.message
    checkpoint = run_folder(root, KIND) / layout.CHECKPOINTS / f"checkpoint-{step}"
    assert (checkpoint / layout.COMPLETE).is_file()
    assert read_manifest(run_folder(root, KIND)) is None
    assert not artifact(root).exists()


def test_a_resumed_run_ends_with_the_very_weights_of_an_undisturbed_one(
    undisturbed: tuple[Path, StageResult], preempted: tuple[Path, StageResult], copy: Callable[[Path], Path]
) -> None:
    root = copy(preempted[0])
    saved = steps_done(root, KIND)
    result = run_stage_process(undisturbed_config(attempt=2), root)
    assert result.resumed_from == f"checkpoint-{saved}"
    assert same_weights(weights(root), weights(undisturbed[0]))
    assert learned(result) == learned(undisturbed[1])


def test_a_run_that_died_after_its_last_step_publishes_without_another_step(
    undisturbed: tuple[Path, StageResult], copy: Callable[[Path], Path]
) -> None:
    root = copy(undisturbed[0])
    (run_folder(root, KIND) / layout.MANIFEST).unlink()
    expected = weights(root)
    shutil.rmtree(artifact(root))
    result = run_stage_process(undisturbed_config(attempt=2), root)
    assert result.outcome == "Succeeded"
    assert result.metrics["steps"] == STEPS
    assert learned(result) == learned(undisturbed[1])
    assert same_weights(weights(root), expected)


def test_two_processes_compute_the_losses_of_one_with_the_same_global_batch_and_stop_together(
    undisturbed: tuple[Path, StageResult], tiny_inputs: Path, tmp_path: Path
) -> None:
    root = mount(tmp_path / "two", tiny_inputs)
    config = undisturbed_config(training={"batchSize": 4}, distributed={"processesPerNode": 2})
    stage = start_stage_process(config, root, env={"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2"})
    wait_for(lambda: steps_done(root, KIND) >= 15, "15 steps")
    stage.process.send_signal(signal.SIGTERM)
    result = stage.wait()
    assert result.exit_code is ExitCode.PREEMPTED
    last = steps_done(root, KIND)
    checkpoint = run_folder(root, KIND) / layout.CHECKPOINTS / f"checkpoint-{last}"
    assert json.loads((checkpoint / layout.COMPLETE).read_text(encoding="utf-8"))["worldSize"] == 2
    ours, theirs = history(root, KIND), history(undisturbed[0], KIND)
    for step in range(1, last + 1):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-4)
    assert ours[0]["exactMatch"] == theirs[0]["exactMatch"]


def test_a_process_that_is_lost_while_the_model_is_evaluated_is_a_lost_peer(tiny_inputs: Path, tmp_path: Path) -> None:
    root, address = mount(tmp_path / "lost", tiny_inputs), pod_address()
    tasks = {"uri": "pvc://posttrain/any", "columns": {"prompt": "problem", "answer": "answer"}}
    evaluation = {"generate": {"dataset": tasks, "maxNewTokens": 64, "batchSize": 1}}
    config = finetune_config(steps=1, evaluation=evaluation, distributed={"processesPerNode": 2})
    stage = start_stage_process(config, root, env={"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "POD_IP": address})
    wait_for(lambda: phase(address) == "evaluating", "the first evaluation")
    (launcher,) = children(stage.process.pid)
    second = next(rank for rank in children(launcher) if environment(rank).get("RANK") == "1")
    os.kill(second, signal.SIGKILL)
    result = stage.wait()
    assert result.exit_code is ExitCode.PEER_LOST, result.message
    assert result.message.startswith("spec.distributed: ")


def published_rows(root: Path, inputs: Path) -> ResolvedInput:
    """The training rows as another job publishes them."""
    staging = root / "upstream" / "staging"
    staging.mkdir(parents=True)
    shutil.copy(inputs / "train.jsonl", staging)
    staged = store.Staged(staging, "dataset", rows=TRAIN_ROWS)
    manifest = store.describe(staged, config_digest="0" * 64, inputs={})
    store.publish(root / "upstream", staged, manifest)
    return ResolvedInput(uri="pvc://posttrain/upstream/artifact", path="upstream/artifact", digest=manifest.digest)


def reading(config: FineTuneStage, dataset: ResolvedInput) -> FineTuneStage:
    """The same training of other rows."""
    run = config.run.model_copy(update={"inputs": {**config.run.inputs, "dataset": dataset}})
    return config.model_copy(update={"run": run})


def assert_card(root: Path, *, merged: bool, dataset: ResolvedInput, result: StageResult) -> None:
    """The card says what was done, from what, and what came of it."""
    text = (artifact(root) / README).read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["posttrain", "sft", "lora"],
    }
    (prepared,) = (root / "store" / "test" / layout.PREPARED).iterdir()
    end = "merged into the model" if merged else "published alone"
    for row in (
        "| run | `test/FineTuneJob/test` |",
        f"| trained | LoRA of rank 4, alpha 8, on q_proj, v_proj, {end} |",
        f"| rows | {TRAIN_ROWS} |",
        f"| rows, prepared | `{prepared.name}` |",
        "| steps | 4 |",
        f"| dataset | `{dataset.uri}` | `{dataset.digest}` |",
        "| model | `pvc://posttrain/inputs/base-model` |  |",
        f"| loss | {result.metrics['loss']:g} |",
        f"| exactMatch | {result.metrics['exactMatch']:g} |",
        f"| trl | {importlib.metadata.version('trl')} |",
    ):
        assert f"\n{row}\n" in text
    assert "tokensPerSecond" not in text, "the speed of a machine is no property of the model"


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_is_published_merged_or_alone(tiny_inputs: Path, tmp_path: Path, *, merge: bool) -> None:
    root = mount(tmp_path / "lora", tiny_inputs)
    dataset = published_rows(root, tiny_inputs)
    adapter = {"lora": {"rank": 4, "alpha": 8, "targetModules": "q_proj, v_proj"}}
    config = finetune_config(steps=4, adapter=adapter, export={"merge": merge})
    result = run_stage_process(reading(config, dataset), root)
    assert result.outcome == "Succeeded"
    assert_card(root, merged=merge, dataset=dataset, result=result)
    base = load_file(tiny_inputs / "base-model" / "model.safetensors")
    if merge:
        tuned = weights(root)
        changed = {name for name in base if (base[name] != tuned[name]).any()}
        assert base.keys() == tuned.keys()
        assert changed == {name for name in base if "q_proj" in name or "v_proj" in name}
    else:
        assert result.artifact is not None
        saved = load_file(artifact(root) / "adapter_model.safetensors")
        assert result.artifact.parameters == sum(tensor.size for tensor in saved.values())
        settings = json.loads((artifact(root) / "adapter_config.json").read_text(encoding="utf-8"))
        assert settings["r"] == 4
        assert settings["base_model_name_or_path"] == "pvc://posttrain/inputs/base-model"
        assert not (artifact(root) / "config.json").exists()


def test_a_missing_column_is_named_with_the_columns_there_are(tiny_inputs: Path, tmp_path: Path) -> None:
    root = mount(tmp_path / "column", tiny_inputs)
    dataset = {"uri": "pvc://posttrain/any", "columns": {"prompt": "problem", "completion": "respone"}}
    result = run_stage_process(finetune_config(steps=1, dataset=dataset), root)
    assert result.exit_code is ExitCode.DATA
    assert result.reason == "MissingColumn"
    assert "spec.dataset.columns.completion" in result.message
    assert "'respone'" in result.message
    assert "answer, pass_rate, problem, solution" in result.message


def test_a_model_folder_without_tokenizer_is_an_error_that_says_what_to_do(tiny_inputs: Path, tmp_path: Path) -> None:
    root = mount(tmp_path / "tokenizer", tiny_inputs)
    bare = root / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_inputs / "base-model" / name, bare)
    result = run_stage_process(finetune_config(steps=1, model_path="bare"), root)
    assert result.exit_code is ExitCode.MODEL
    assert result.reason == "TokenizerMissing"
    assert "spec.model" in result.message
    assert "tokenizer.json" in result.message


def test_the_tiny_model_learns_gsm8k_text(tiny_inputs: Path, tmp_path: Path) -> None:
    if not GSM8K.is_file():
        pytest.skip(f"GSM8K is not at {GSM8K}")
    root = mount(tmp_path / "gsm8k", tiny_inputs)
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()[:160]]
    write_jsonl(root / "gsm8k.jsonl", [{"problem": row["question"], "solution": row["answer"]} for row in rows])
    result = run_stage_process(
        finetune_config(steps=12, dataset_path="gsm8k.jsonl", training={"maxLength": 256, "learningRate": 3e-3}), root
    )
    assert result.outcome == "Succeeded"
    assert result.metrics["loss"] < 0.9 * result.metrics["firstLoss"]
