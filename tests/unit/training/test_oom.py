"""Running out of memory: the answer names the settings that would fit, from the configuration and the GPU at hand."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.fitting import MORE, least_changes, smaller_batches
from posttrain_contract.training import Training
from posttrain_finetune.lighter import advice
from posttrain_rl.rank import _lighter
from posttrain_runtime.errors import StageError
from posttrain_training import oom
from support.tiny import finetune_config, rl_config

LLAMA_2_7B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11_008,
    "vocab_size": 32_000,
}
GB = 10**9


def spec(**fields: Any) -> FineTuneSpec:
    return finetune_config(steps=1, **fields).spec


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model of 7B, as far as the advice looks at it."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_2_7B))
    return tmp_path


def test_what_would_fit_is_named_with_the_figures(model: Path) -> None:
    told = advice(spec(training={"batchSize": 8, "maxLength": 4096}), model, room=60 * GB)
    assert told.startswith("by estimate ")
    assert "are needed on a GPU, which has 55.9 GiB; it would fit with training.batchSize: " in told
    assert told.endswith("; adapter: {} (trains small matrices in place of all weights)")


def test_where_no_change_suffices_more_gpus_are_named(model: Path) -> None:
    assert advice(spec(), model, room=GB).endswith(f"it would fit only with {MORE}")


@pytest.mark.parametrize("room", [None, 10_000 * GB], ids=["no GPU", "an estimate that was too low"])
def test_where_nobody_can_tell_what_fits_what_needs_less_is_named(model: Path, room: int | None) -> None:
    assert advice(spec(), model, room=room) == f"each of these needs less: {'; '.join(least_changes(spec()))}"


@pytest.mark.parametrize("config", ["", "{}", '{"num_experts_per_tok": 2}'])
def test_the_same_for_a_model_without_an_estimate(model: Path, config: str) -> None:
    (model / "config.json").write_text(config)
    assert advice(spec(), model, room=GB).startswith("each of these needs less: ")


def test_what_trains_the_same_thing_comes_first() -> None:
    assert least_changes(spec(training={"batchSize": 8, "gradientAccumulation": 2})) == [
        "training.batchSize: 4 with training.gradientAccumulation: 4 (the same step)",
        "training.gradientCheckpointing: full (costs a third of the speed)",
        "adapter: {} (trains small matrices in place of all weights)",
    ]


@pytest.mark.parametrize(
    ("fields", "third"),
    [
        ({}, "adapter: {}"),
        ({"adapter": {}}, "adapter.quantization: nf4"),
        ({"adapter": {"quantization": "int8"}}, "training.maxLength: 64"),
        ({"adapter": {}, "distributed": {"nodes": 2, "strategy": "zero3"}}, "training.maxLength: 64"),
        ({"distributed": {"nodes": 2}}, "distributed.strategy: zero3"),
    ],
)
def test_the_last_one_changes_as_little_as_is_left_to_change(fields: dict[str, Any], third: str) -> None:
    assert least_changes(spec(**fields))[2].startswith(third)


def test_what_is_at_its_limit_is_not_named() -> None:
    least = spec(training={"batchSize": 1, "gradientCheckpointing": "full"}, adapter={})
    fields = [told.partition(":")[0] for told in least_changes(least)]
    assert fields == ["adapter.quantization", "training.maxLength", "distributed.nodes or run.resources"]


def test_a_smaller_batch_keeps_the_rows_of_a_step() -> None:
    for batch, passes in itertools.product(range(2, 40), range(1, 9)):
        before = batch
        for change in smaller_batches(Training(batch_size=batch, gradient_accumulation=passes)):
            values = change.values["training"]
            assert values["batchSize"] * values["gradientAccumulation"] == batch * passes
            assert 1 <= values["batchSize"] <= before // 2
            before = values["batchSize"]
        assert before == 1


def test_a_reinforcement_learning_is_told_what_its_own_fields_allow() -> None:
    told = _lighter(rl_config(steps=1, servers=("127.0.0.1",)).spec)
    assert told.startswith("each of these needs less: training.batchSize: ")
    assert told.endswith(f"training.gradientCheckpointing: full (costs a third of the speed); {MORE}")


def allocate_too_much() -> None:
    """Asks torch for more than any machine has."""
    torch.empty(1 << 50)


def allocate_on_gpu() -> None:
    """What a GPU that is full does."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


@pytest.mark.parametrize("work", [allocate_too_much, allocate_on_gpu])
def test_a_lack_of_memory_is_answered_with_them(work: Any) -> None:
    with pytest.raises(StageError) as caught, oom.naming(lambda: "do this"):
        work()
    assert (caught.value.code, caught.value.reason) == (ExitCode.OUT_OF_MEMORY, "OutOfMemory")
    assert caught.value.message.startswith("spec.training: out of memory (")
    assert caught.value.message.endswith("; do this")


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="memory"), oom.naming(lambda: "do this"):
        raise ValueError("memory")
