"""The methods of fine-tuning: which trainer of TRL, with which arguments and figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from posttrain_contract.finetune import FineTuneSpec
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from posttrain_finetune.arguments import dpo_arguments, sft_arguments


@dataclass(frozen=True)
class Method:
    """One method."""

    trainer: Callable[..., Any]
    """Makes the trainer from its arguments; from ``told``, which it calls while it computes before the first step; and
    from the folder ``kept``, for what it computed then.
    """
    configuration: Callable[..., Any]
    """The class of its arguments."""
    translate: Callable[..., dict[str, Any]]
    """From the contract to keyword arguments of ``configuration``."""
    figures: Mapping[str, str]
    """What it logs beside what every trainer does, and how our history calls it."""

    def arguments(self, spec: FineTuneSpec, *, output: Path, on_cpu: bool) -> Any:
        """The trainer's arguments; making them starts the process group."""
        return self.configuration(**self.translate(spec, output=output, on_cpu=on_cpu))


class PreparedPairsTrainer(DPOTrainer):
    """TRL's trainer over pairs that are tokens already; it has no switch for that, as the other one does."""

    def __init__(self, *, told: Callable[[], None], kept: Path, **arguments: Any) -> None:
        self._told = told
        self._kept = kept
        super().__init__(**arguments)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """The reference's log-probabilities of a batch, all of which are computed before the first step."""
        self._told()
        return super().compute_ref_log_probs(model, inputs)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Keeps them in a folder of this run: TRL's place is beside the rows, which are published and shared."""
        self._kept.mkdir(parents=True, exist_ok=True)
        place = self._kept / "reference"
        dataset._get_cache_file_path = lambda key: f"{place}-{key}.arrow"  # noqa: SLF001 - whom TRL asks for the place
        return super()._precompute_ref_logps(dataset, name, batch_size)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "sft": Method(
            trainer=lambda told, kept, **arguments: SFTTrainer(**arguments),  # noqa: ARG005 - it computes nothing before
            configuration=SFTConfig,
            translate=sft_arguments,
            figures={"mean_token_accuracy": "tokenAccuracy", "num_tokens": "tokens"},
        ),
        "dpo": Method(
            trainer=PreparedPairsTrainer,
            configuration=DPOConfig,
            translate=dpo_arguments,
            figures={
                "rewards/accuracies": "preferenceAccuracy",
                "rewards/margins": "rewardMargin",
                "logps/chosen": "chosenLogProb",
                "logps/rejected": "rejectedLogProb",
                "num_tokens": "tokens",
            },
        ),
    }
)
"""Each ``spec.method``."""
