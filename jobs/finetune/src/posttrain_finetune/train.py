"""Supervised fine-tuning of all weights or of an adapter, with TRL."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import datasets
from peft import LoraConfig
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.ranks import RankOutcome
from posttrain_training import gang
from posttrain_training.models import load_model, load_tokenizer, quiet
from posttrain_training.rows import Row
from posttrain_training.session import Session
from trl import SFTConfig, SFTTrainer

from posttrain_finetune.arguments import lora_arguments, sft_arguments

_FIGURES = {"mean_token_accuracy": "tokenAccuracy", "num_tokens": "tokens"}


@gang.losing_peers()
def train(context: StageContext[FineTuneStage], rows: list[Row]) -> RankOutcome:
    """Runs one rank of the fine-tuning on ``rows`` (prompt, completion) to its end.

    Raises ``StageError`` and ``Preempted``.
    """
    quiet()
    spec = context.config.spec
    context.progress.update("loading model")
    tokenizer = load_tokenizer(context.input_path("model"))
    arguments = SFTConfig(
        **sft_arguments(spec, output=context.folder / layout.CHECKPOINTS, on_cpu=context.config.run.gpus == 0)
    )
    session = Session(context, device=arguments.device, tokenizer=tokenizer)
    trainer = TRAINERS[spec.method](context, arguments, tokenizer, rows)
    step = session.run(trainer, figures=_FIGURES)
    model = _exported(trainer.model, context)
    return session.finish(model, step=step, metrics=session.metrics(step=step))


def _sft_trainer(
    context: StageContext[FineTuneStage], arguments: SFTConfig, tokenizer: Any, rows: list[Row]
) -> SFTTrainer:
    spec = context.config.spec
    try:
        return SFTTrainer(
            model=load_model(context.input_path("model"), precision=spec.training.precision),
            args=arguments,
            train_dataset=datasets.Dataset.from_list([_conversation(row) for row in rows]),
            processing_class=tokenizer,
            peft_config=None if spec.adapter is None else LoraConfig(**lora_arguments(spec.adapter.lora)),
        )
    except ValueError as error:
        if spec.adapter is not None and "target modules" in str(error).lower():
            message = f"spec.adapter.lora.targetModules: the model has no such linear layer: {error}"
            raise StageError(ExitCode.MODEL, "TargetModulesMissing", message) from error
        raise


TRAINERS: Mapping[str, Callable[..., SFTTrainer]] = MappingProxyType({"sft": _sft_trainer})
"""What makes the trainer of each ``spec.method``, with the arguments of ``_sft_trainer``."""


def _conversation(row: Row) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
    }


def _exported(model: Any, context: StageContext[FineTuneStage]) -> Any:
    """The model that the artifact holds: whole, or the adapter that names its base by where it was read."""
    if context.config.spec.adapter is None:
        return model
    if context.config.spec.export.merge:
        return model.merge_and_unload()
    for settings in model.peft_config.values():
        settings.base_model_name_or_path = context.input("model").uri
    return model
