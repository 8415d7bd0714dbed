"""The contract in the words of TRL and PEFT. Pure: no ML library is imported here."""

from pathlib import Path
from typing import Any

from posttrain_contract.adapter import Lora
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.preference import Dpo
from posttrain_training.arguments import trainer_arguments

from posttrain_finetune.sharding import sharding_arguments


def sft_arguments(spec: FineTuneSpec, *, output: Path, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments of ``trl.SFTConfig``; ``output`` is the checkpoint folder."""
    return {
        **_arguments(spec, output=output, on_cpu=on_cpu),
        # The rows come with tokens and labels, cut and packed; packed ones are kept apart by their positions.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "padding_free": spec.training.packing,
    }


def dpo_arguments(spec: FineTuneSpec, *, output: Path, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments of ``trl.DPOConfig``; ``output`` is the checkpoint folder.

    With an adapter the reference is the model without it, or with TRL's frozen copy of an initial one; else the
    reference's log-probabilities are computed before the first step (under FSDP by a second model that is let go).
    """
    dpo = spec.dpo or Dpo()
    return {
        **_arguments(spec, output=output, on_cpu=on_cpu),
        "max_length": spec.training.max_length,
        "beta": dpo.beta,
        "loss_type": [dpo.loss],
        "label_smoothing": dpo.label_smoothing,
        "precompute_ref_log_probs": spec.adapter is None,
    }


def _arguments(spec: FineTuneSpec, *, output: Path, on_cpu: bool) -> dict[str, Any]:
    selective = spec.training.gradient_checkpointing == "selective"
    return {
        **trainer_arguments(spec.training, spec.checkpoints, output=output, on_cpu=on_cpu),
        "activation_checkpointing_kwargs": {"selective": True} if selective else None,
        "neftune_noise_alpha": spec.training.neftune_alpha,
        **sharding_arguments(spec.distributed, on_cpu=on_cpu),
    }


def lora_arguments(lora: Lora) -> dict[str, Any]:
    """Keyword arguments of ``peft.LoraConfig``."""
    modules = [name.strip() for name in lora.target_modules.split(",")]
    return {
        "task_type": "CAUSAL_LM",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rs_lora,
        "use_dora": lora.dora,
        "target_modules": "all-linear" if modules == ["all-linear"] else modules,
    }
