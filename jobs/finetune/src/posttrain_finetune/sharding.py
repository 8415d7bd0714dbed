"""What the processes of a gang share, in the words of DeepSpeed and of PyTorch's FSDP. Pure: no library is imported.

The values "auto" are filled in by transformers from the trainer's arguments, so batch and precision are said once.
"""

from collections.abc import Mapping
from typing import Any

from posttrain_contract.distributed import Distributed
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError

_STAGES: Mapping[str, int] = {"zero1": 1, "zero2": 2, "zero3": 3}


def check_override(distributed: Distributed) -> None:
    """Raises ``StageError`` (USAGE) where the expert's override is no JSON object."""
    try:
        distributed.override_values()
    except ValueError as error:
        message = f"spec.distributed.override: {error}; write a JSON object"
        raise StageError(ExitCode.USAGE, "InvalidOverride", message) from error


def sharding_arguments(distributed: Distributed, *, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments of a trainer's configuration for the strategy, with the override merged in; none for ddp."""
    if distributed.strategy == "ddp":
        return {}
    override = distributed.override_values()
    if distributed.strategy == "fsdp2":
        return {"fsdp": True, "fsdp_config": merged(_FSDP2, override)}
    return {"deepspeed": merged(_deepspeed(_STAGES[distributed.strategy], on_cpu=on_cpu), override)}


_FSDP2: Mapping[str, Any] = {
    "version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "cpu_ram_efficient_loading": False,
    # Each process writes its own part: gathering whole weights for each checkpoint costs minutes and memory.
    "state_dict_type": "SHARDED_STATE_DICT",
}


def _deepspeed(stage: int, *, on_cpu: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "contiguous_gradients": True, "overlap_comm": not on_cpu}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "zero_allow_untested_optimizer": True,
    }


def merged(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``override``; mappings are merged, everything else is replaced."""
    result = dict(base)
    for name, value in override.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result
