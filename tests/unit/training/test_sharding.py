"""What a strategy is in the words of DeepSpeed and FSDP, with an expert's override merged in."""

from typing import Any

import pytest
from posttrain_contract.distributed import Distributed
from posttrain_finetune.sharding import sharding_arguments


def gang(strategy: str, override: str | None = None) -> Distributed:
    return Distributed.parse({"processesPerNode": 2, "strategy": strategy, "override": override})


def test_ddp_needs_no_configuration() -> None:
    assert sharding_arguments(gang("ddp"), on_cpu=False) == {}


@pytest.mark.parametrize(("strategy", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3)])
def test_zero_is_a_stage_of_deepspeed_and_the_trainer_says_batch_and_precision(strategy: str, stage: int) -> None:
    said = sharding_arguments(gang(strategy), on_cpu=False)["deepspeed"]
    assert (said["zero_optimization"]["stage"], said["zero_optimization"]["overlap_comm"]) == (stage, True)
    assert said["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save", False) is (stage == 3)
    assert said["train_micro_batch_size_per_gpu"] == said["bf16"]["enabled"] == said["gradient_clipping"] == "auto"


def test_fsdp2_wraps_the_layers_of_the_model_and_each_process_saves_its_part() -> None:
    said = sharding_arguments(gang("fsdp2"), on_cpu=False)
    assert said["fsdp"] is True
    assert said["fsdp_config"] == {
        "version": 2,
        "reshard_after_forward": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "cpu_ram_efficient_loading": False,
        "state_dict_type": "SHARDED_STATE_DICT",
    }


@pytest.mark.parametrize(
    ("strategy", "override", "path", "value"),
    [
        ("zero3", '{"zero_optimization": {"stage3_max_live_parameters": 5}}', ("zero_optimization", "stage"), 3),
        ("zero3", '{"zero_optimization": {"overlap_comm": false}}', ("zero_optimization", "overlap_comm"), False),
        ("zero2", '{"gradient_clipping": 0.5}', ("gradient_clipping",), 0.5),
        ("zero2", '{"wall_clock_breakdown": true}', ("wall_clock_breakdown",), True),
        ("fsdp2", '{"reshard_after_forward": false}', ("reshard_after_forward",), False),
    ],
)
def test_an_override_changes_what_it_names_and_nothing_else(
    strategy: str, override: str, path: tuple[str, ...], value: object
) -> None:
    plain = sharding_arguments(gang(strategy), on_cpu=True)
    said = sharding_arguments(gang(strategy, override), on_cpu=True)
    name = "fsdp_config" if strategy == "fsdp2" else "deepspeed"
    assert at(said[name], path) == value
    assert [key for key in plain[name] if key not in said[name]] == []
    assert {key: value for key, value in plain[name].items() if key not in override} == {
        key: said[name][key] for key in plain[name] if key not in override
    }


def at(document: Any, path: tuple[str, ...]) -> Any:
    """The value at a path."""
    return document if not path else at(document[path[0]], path[1:])
