"""The part of the trainers' arguments that both stages derive from the contract alike."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from posttrain_contract.training import Checkpoints, Training

SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {
        "constant": "constant_with_warmup",
        "linear": "linear",
        "cosine": "cosine_with_min_lr",
        "inverse_sqrt": "inverse_sqrt",
    }
)


def trainer_arguments(training: Training, checkpoints: Checkpoints, *, output: Path, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments of a Hugging Face trainer's configuration.

    ``output`` is the checkpoint folder. Everything that would reach for the network, a display or another tool's
    settings is off; checkpoints are rotated by us, after they are sealed.
    """
    return {
        "output_dir": str(output),
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": SCHEDULERS[training.scheduler],
        "lr_scheduler_kwargs": {"min_lr_rate": training.min_learning_rate_ratio}
        if training.scheduler == "cosine"
        else {},
        # One argument for both: below 1 it is a share of all steps.
        "warmup_steps": training.warmup_ratio or training.warmup_steps,
        "optim": training.optimizer,
        "max_grad_norm": training.max_gradient_norm,
        "weight_decay": training.weight_decay,
        "bf16": training.precision == "bf16",
        "seed": training.seed,
        "use_cpu": on_cpu,
        "save_strategy": "steps",
        "save_steps": checkpoints.every_steps,
        "save_total_limit": None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "activation_checkpointing": training.gradient_checkpointing != "off",
        "gradient_checkpointing": None,  # the older name, which TRL sets
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "report_to": "none",
    }
