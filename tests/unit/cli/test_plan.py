"""``posttrain plan``: what it shows, how it finds a model's shape, and what it advises where a job cannot fit."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from posttrain.main import cli
from posttrain.shapes import known_shape, typical_shape
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.fitting import MORE, Change, changed, changes, what_would_fit
from posttrain_contract.memory import estimate
from posttrain_contract.shape import ModelShape

JOB = """\
apiVersion: posttrain.dev/v1alpha1
kind: FineTuneJob
metadata: {name: sft}
spec:
  model: {uri: "pvc://models/llama"}
  dataset: {uri: "pvc://data/d.jsonl"}
  training: {batchSize: 8, maxLength: 4096, attention: flash_attention_2}
  run: {resources: {gpus: 1}}
"""
LLAMA_2_7B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11_008,
    "vocab_size": 32_000,
}
SHAPE = ModelShape.from_config(LLAMA_2_7B)


def plan(*arguments: str, stdin: str = JOB) -> Result:
    return CliRunner().invoke(cli, ["plan", "-", *arguments], input=stdin, catch_exceptions=False)


def planned(*arguments: str, stdin: str = JOB) -> dict[str, Any]:
    result = plan("--json", *arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def job(training: dict[str, Any] | None = None, **fields: Any) -> FineTuneSpec:
    return FineTuneSpec.parse(
        {
            "model": {"uri": "pvc://m/m"},
            "dataset": {"uri": "pvc://d/d"},
            "training": {"attention": "flash_attention_2", "maxLength": 4096, **(training or {})},
            **fields,
        }
    )


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the claim ``models``, with a model in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models"
    (folder / "llama").mkdir(parents=True)
    (folder / "llama/config.json").write_text(json.dumps(LLAMA_2_7B))
    return folder


def test_it_shows_the_parts_the_total_and_the_memory(claim: Path) -> None:
    small = JOB.replace("batchSize: 8", "batchSize: 1").replace("  run:", "  adapter: {}\n  run:")
    result = plan("--claim", f"models={claim}", stdin=small)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "FineTuneJob/sft: 6.74B parameters, 0.593 % trained, 1 x GPU, ddp"
    names = [line.split()[0] for line in lines[1:]]
    assert names == ["weights", "gradients", "optimizer", "activations", "logits", "other", "total"]
    assert lines[-1].endswith(" GiB of 80.0 GiB")
    assert sum(float(line.split()[1]) for line in lines[1:-1]) == pytest.approx(float(lines[-1].split()[1]), abs=0.4)
    assert not (claim.parent / ".posttrain").exists(), "it only looks"


def test_a_job_that_cannot_fit_gets_a_warning_and_the_settings_that_would(claim: Path) -> None:
    result = plan("--claim", f"models={claim}")
    assert result.exit_code == 0
    (warning,) = [line for line in result.stdout.splitlines() if line.startswith("WARNING")]
    assert warning == (
        "WARNING: FineTuneJob/sft cannot fit; what would: "
        "training.batchSize: 1 with training.gradientAccumulation: 8 (the same step)"
    )


def test_a_larger_gpu_silences_the_warning(claim: Path) -> None:
    answer = planned("--claim", f"models={claim}", "--gpu-memory", "400Gi")["FineTuneJob/sft"]
    assert (answer["fits"], answer["remedies"], answer["gpuMemory"]) == (True, [], 400 * 2**30)


def test_on_a_cpu_there_is_no_gpu_to_fit() -> None:
    result = plan("--parameters", "7B", stdin=JOB.replace("gpus: 1", "gpus: 0"))
    assert (result.exit_code, "WARNING" in result.stdout) == (0, False)
    assert "1 x CPU process, in main memory" in result.stdout


def test_a_model_on_the_hub_is_looked_up_whatever_its_revision() -> None:
    for uri in ("hf://meta-llama/Llama-2-7b-hf", "hf://meta-llama/Llama-2-7b-chat-hf@main"):
        assert known_shape(uri) == SHAPE
    for uri in ("hf://acme/Llama-2-7b-hf", "hf://datasets/meta-llama/Llama-2-7b-hf", "pvc://models/llama"):
        assert known_shape(uri) is None


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
        ("meta-llama/Llama-2-70b-hf", 68_976_648_192),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496),
        ("llm-jp/llm-jp-4-8b-base", 8_590_200_832),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-32B", 32_762_123_264),
    ],
)
def test_the_table_agrees_with_the_published_numbers_of_parameters(name: str, parameters: int) -> None:
    shape = known_shape(f"hf://{name}")
    assert shape is not None
    # Qwen3's norms of queries and keys are not counted.
    assert shape.parameters == pytest.approx(parameters, rel=1e-5)


def test_a_model_of_unknown_shape_wants_its_size() -> None:
    result = plan()
    assert (result.exit_code, result.stdout.strip()) == (1, "")
    assert result.stderr == (
        "FineTuneJob/sft: spec.model: the shape of pvc://models/llama is not known here; give its size with "
        "--parameters\n"
    )
    assert planned("--parameters", "7B")["FineTuneJob/sft"]["parameters"] == pytest.approx(7e9, rel=0.03)


@pytest.mark.parametrize("parameters", [0.5e9, 3e9, 8e9, 14e9, 32e9, 70e9, 180e9])
def test_a_typical_model_has_the_size_asked_for(parameters: float) -> None:
    assert typical_shape(parameters).parameters == pytest.approx(parameters, rel=0.1)


@pytest.mark.parametrize(
    ("text", "sentence"), [("{", "it is no JSON"), ("[]", "it is no JSON object"), ("{}", "num_hidden_layers")]
)
def test_a_broken_configuration_is_explained(claim: Path, text: str, sentence: str) -> None:
    (claim / "llama/config.json").write_text(text)
    result = plan("--claim", f"models={claim}", "--parameters", "7B")
    assert result.exit_code == 1
    assert "FineTuneJob/sft: spec.model: config.json of pvc://models/llama: " in result.stderr
    assert sentence in result.stderr


def test_a_model_that_another_job_makes_has_the_shape_of_its_model(claim: Path) -> None:
    second = JOB.replace("name: sft", "name: more").replace('{uri: "pvc://models/llama"}', "{from: FineTuneJob/sft}")
    answer = planned("--claim", f"models={claim}", stdin=f"{JOB}---\n{second}")
    assert answer["FineTuneJob/more"] == answer["FineTuneJob/sft"]


@pytest.mark.parametrize(
    "arguments", [("--gpu-memory", "80"), ("--gpu-memory", "much"), ("--parameters", "big"), ("--parameters", "0")]
)
def test_a_size_that_is_none_is_wrong_usage(arguments: tuple[str, str]) -> None:
    result = plan(*arguments)
    assert (result.exit_code, f"found '{arguments[1]}'" in result.stderr) == (2, True)


def test_other_kinds_have_no_plan_and_invalid_ones_are_refused() -> None:
    upload = JOB.replace("FineTuneJob", "UploadJob")
    assert plan(stdin=upload[: upload.index("spec")] + "spec: {}\n").exit_code == 3
    assert plan(stdin=JOB.replace("batchSize", "batchsize")).exit_code == 3
    keep = "apiVersion: posttrain.dev/v1alpha1\nkind: FilterJob\nmetadata: {name: f}\n"
    filtering = f'{keep}spec: {{source: {{uri: "pvc://p/x"}}, byLabel: {{column: c, max: 1}}}}\n'
    assert plan(stdin=filtering).exit_code == 2


FULL = job({"batchSize": 8})
SHARED = job({"batchSize": 8}, distributed={"nodes": 1, "processesPerNode": 8})
QUANTIZED = job({"batchSize": 1, "maxLength": 8192}, adapter={"quantization": "nf4"})


@pytest.mark.parametrize(
    ("spec", "gigabytes", "fields"),
    [
        (FULL, 200, ["training.batchSize"]),
        (FULL, 80, ["training.gradientCheckpointing"]),
        (FULL, 70, ["training.batchSize", "training.gradientCheckpointing"]),
        (FULL, 60, ["training.batchSize", "adapter"]),
        (FULL, 9, ["training.batchSize", "training.gradientCheckpointing", "adapter"]),
        (SHARED, 60, ["training.batchSize", "distributed.strategy"]),
        (SHARED, 30, ["training.batchSize", "training.gradientCheckpointing", "distributed.strategy"]),
        (QUANTIZED, 40, ["training.gradientCheckpointing"]),
        (QUANTIZED, 10, ["training.gradientCheckpointing", "training.maxLength"]),
    ],
)
def test_the_advice_fits_and_nothing_of_it_is_idle(spec: FineTuneSpec, gigabytes: int, fields: list[str]) -> None:
    room = gigabytes * 10**9
    advice = what_would_fit(spec, SHAPE, room=room)
    assert [change.text.partition(":")[0] for change in advice] == fields
    assert needed_after(spec, advice) <= room
    for left_out in advice:
        assert needed_after(spec, tuple(change for change in advice if change is not left_out)) > room


def needed_after(spec: FineTuneSpec, advice: tuple[Change, ...]) -> int:
    after = changed(spec, advice)
    assert after is not None
    return estimate(after, SHAPE).total


def test_changes_that_do_not_go_together_are_not_advised() -> None:
    selective = job({"gradientCheckpointing": "selective"}, adapter={}, distributed={"processesPerNode": 2})
    zero3 = [change for kind in changes(selective) for change in kind if "zero3" in change.text]
    assert changed(selective, tuple(zero3)) is None


def test_where_nothing_helps_only_more_gpus_are_left() -> None:
    assert what_would_fit(job(), SHAPE, room=2**30) == ()
    answer = planned("--parameters", "70B", "--gpu-memory", "2Gi")["FineTuneJob/sft"]
    assert answer["remedies"] == [MORE]
