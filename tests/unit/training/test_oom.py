"""Running out of memory: the answer names the settings that need less, from the configuration at hand."""

import itertools
from typing import Any

import pytest
import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_finetune.rank import _lighter
from posttrain_runtime.errors import StageError
from posttrain_training import oom
from support.tiny import finetune_config


def remedies(**settings: Any) -> list[str]:
    """The remedies for a plain full fine-tuning, or one that differs from it."""
    plain: dict[str, Any] = {
        "batch_size": 8,
        "accumulation": 2,
        "max_length": 4096,
        "checkpointing": "off",
        "weights": "all",
    }
    return oom.remedies(**{**plain, **settings})


def test_what_trains_the_same_thing_comes_first() -> None:
    assert remedies() == [
        "training.batchSize: 4 with training.gradientAccumulation: 4 (the same step)",
        "training.gradientCheckpointing: full (costs a third of the speed)",
        "adapter: {} (trains small matrices in place of all weights)",
    ]


@pytest.mark.parametrize(
    ("settings", "third"),
    [
        ({"weights": "adapter"}, "adapter.quantization: nf4"),
        ({"weights": "fixed"}, "training.maxLength: 2048"),
        ({"weights": "fixed", "max_length": None}, "distributed.nodes or run.resources"),
    ],
)
def test_the_last_one_changes_as_little_as_is_left_to_change(settings: dict[str, Any], third: str) -> None:
    assert remedies(**settings)[2].startswith(third)


def test_what_is_at_its_limit_is_not_named() -> None:
    fields = [told.partition(":")[0] for told in remedies(batch_size=1, checkpointing="full", weights="adapter")]
    assert fields == ["adapter.quantization", "training.maxLength", "distributed.nodes or run.resources"]
    assert remedies(checkpointing="selective")[1].startswith("training.gradientCheckpointing: full")


def test_a_smaller_batch_keeps_the_rows_of_a_step() -> None:
    for batch, passes in itertools.product(range(2, 40), range(1, 9)):
        smaller, more = oom._smaller(batch, passes)
        assert smaller * more == batch * passes
        assert 1 <= smaller <= batch // 2


@pytest.mark.parametrize(
    ("spec", "third"),
    [
        ({}, "adapter: {}"),
        ({"adapter": {}}, "adapter.quantization: nf4"),
        ({"adapter": {"quantization": "int8"}}, "training.maxLength: 64"),
        ({"adapter": {}, "distributed": {"nodes": 2, "strategy": "zero3"}}, "training.maxLength: 64"),
    ],
)
def test_a_fine_tuning_is_told_what_its_own_configuration_allows(spec: dict[str, Any], third: str) -> None:
    told = _lighter(finetune_config(steps=1, **spec).spec)
    assert told[0].startswith("training.batchSize: 4 with training.gradientAccumulation: 2")
    assert told[2].startswith(third)


def allocate_too_much() -> None:
    """Asks torch for more than any machine has."""
    torch.empty(1 << 50)


def allocate_on_gpu() -> None:
    """What a GPU that is full does."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


@pytest.mark.parametrize("work", [allocate_too_much, allocate_on_gpu])
def test_a_lack_of_memory_is_answered_with_them(work: Any) -> None:
    with pytest.raises(StageError) as caught, oom.naming(remedies):
        work()
    assert (caught.value.code, caught.value.reason) == (ExitCode.OUT_OF_MEMORY, "OutOfMemory")
    assert caught.value.message.startswith("spec.training: out of memory (")
    assert caught.value.message.endswith("; ".join(remedies()))


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="memory"), oom.naming(remedies):
        raise ValueError("memory")
