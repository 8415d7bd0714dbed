"""Adapters: a new one, one to go on from, and what of them is published."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from posttrain_contract.adapter import ADAPTER_INPUT, Adapter, Lora
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_training.models import load_model

from posttrain_finetune.arguments import lora_arguments


def with_initial(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder, ready to be trained further.

    Raises ``StageError`` (MODEL) where the folder holds no adapter of this model.
    """
    if not (folder / "adapter_config.json").is_file():
        raise _initial_error(
            f"{folder.name} has no adapter_config.json; name an adapter that export.merge: false published"
        )
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        message = f"the adapter in {folder.name} does not fit spec.model ({error}); name the model it was trained on"
        raise _initial_error(message) from error


def _initial_error(message: str) -> StageError:
    return StageError(ExitCode.MODEL, "AdapterBroken", f"spec.{ADAPTER_INPUT}: {message}")


def new_adapter(adapter: Adapter | None) -> LoraConfig | None:
    """The configuration of the adapter that the trainer adds; None where it adds none."""
    if adapter is None or adapter.initial is not None:
        return None
    return LoraConfig(**lora_arguments(adapter.lora or Lora()))


def exported(model: Any, context: StageContext[FineTuneStage]) -> Any:
    """The model that the artifact holds: whole, or the adapter that names its base by where it was read."""
    spec = context.config.spec
    if spec.adapter is None:
        return model
    if not spec.export.merge:
        for settings in model.peft_config.values():
            settings.base_model_name_or_path = context.input("model").uri
        return model
    if spec.adapter.quantization is None:
        return model.merge_and_unload()
    return _merged_into_whole_base(model, context)


def _merged_into_whole_base(model: Any, context: StageContext[FineTuneStage]) -> Any:
    """The adapter merged into the base model as it was read: merging into quantized weights would round them again."""
    folder = context.scratch / "adapter"
    model.save_pretrained(folder, selected_adapters=["default"])
    base = load_model(context.input_path("model"), context.config.spec.training)
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
