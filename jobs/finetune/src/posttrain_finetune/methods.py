"""The methods of fine-tuning: which trainer of TRL, with which arguments, figures and rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
from posttrain_contract.finetune import FineTuneSpec
from posttrain_training.rows import Row
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from posttrain_finetune.arguments import dpo_arguments, sft_arguments


@dataclass(frozen=True)
class Method:
    """One method."""

    trainer: Callable[..., Any]
    """The class of the trainer."""
    configuration: Callable[..., Any]
    """The class of its arguments."""
    translate: Callable[..., dict[str, Any]]
    """From the contract to keyword arguments of ``configuration``."""
    figures: Mapping[str, str]
    """What it logs beside what every trainer does, and how our history calls it."""
    example: Callable[[Row], dict[str, Any]]
    """A row as the trainer reads it."""

    def arguments(self, spec: FineTuneSpec, *, output: Path, on_cpu: bool) -> Any:
        """The trainer's arguments; making them starts the process group."""
        return self.configuration(**self.translate(spec, output=output, on_cpu=on_cpu))

    def dataset(self, rows: list[Row]) -> datasets.Dataset:
        """The rows as the trainer reads them."""
        return datasets.Dataset.from_list([self.example(row) for row in rows])


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def _demonstration(row: Row) -> dict[str, Any]:
    return {"prompt": _message("user", row["prompt"]), "completion": _message("assistant", row["completion"])}


def _pair(row: Row) -> dict[str, Any]:
    return {
        "prompt": _message("user", row["prompt"]),
        "chosen": _message("assistant", row["chosen"]),
        "rejected": _message("assistant", row["rejected"]),
    }


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "sft": Method(
            trainer=SFTTrainer,
            configuration=SFTConfig,
            translate=sft_arguments,
            figures={"mean_token_accuracy": "tokenAccuracy", "num_tokens": "tokens"},
            example=_demonstration,
        ),
        "dpo": Method(
            trainer=DPOTrainer,
            configuration=DPOConfig,
            translate=dpo_arguments,
            figures={
                "rewards/accuracies": "preferenceAccuracy",
                "rewards/margins": "rewardMargin",
                "logps/chosen": "chosenLogProb",
                "logps/rejected": "rejectedLogProb",
                "num_tokens": "tokens",
            },
            example=_pair,
        ),
    }
)
"""Each ``spec.method``."""
