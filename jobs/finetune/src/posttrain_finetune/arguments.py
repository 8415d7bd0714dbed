"""The contract in the words of TRL and PEFT. Pure: no ML library is imported here."""

from pathlib import Path
from typing import Any

from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.training import Lora
from posttrain_training.arguments import trainer_arguments


def sft_arguments(spec: FineTuneSpec, *, output: Path, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments of ``trl.SFTConfig``; ``output`` is the checkpoint folder."""
    return {
        **trainer_arguments(spec.training, spec.checkpoints, output=output, on_cpu=on_cpu),
        "max_length": spec.training.max_length,
        "completion_only_loss": True,
        "packing": False,
    }


def lora_arguments(lora: Lora) -> dict[str, Any]:
    """Keyword arguments of ``peft.LoraConfig``."""
    modules = [name.strip() for name in lora.target_modules.split(",")]
    return {
        "task_type": "CAUSAL_LM",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": "all-linear" if modules == ["all-linear"] else modules,
    }
