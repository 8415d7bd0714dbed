"""Adapters: a new one, one to go on from, and what of them is published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peft import LoraConfig, PeftModel
from posttrain_contract.adapter import ADAPTER_INPUT, Adapter, Lora
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name
from posttrain_training import gang
from posttrain_training.card import hub_model
from posttrain_training.models import load_model
from torch.nn import Linear
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain_finetune.arguments import lora_arguments
from posttrain_finetune.initial import adapter_error

_TRAINED: Final = "default"
"""The name that PEFT gives to the adapter that is trained."""


def with_initial(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder, ready to be trained further.

    Raises ``StageError`` (MODEL) where it is no adapter of this model, though ``check_adapter_folder`` let it through.
    """
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = (
            f"the adapter in {shown_name(folder)} does not fit spec.model ({error}); name the model it was trained on"
        )
        raise adapter_error(what) from error


def new_adapter(adapter: Adapter | None, model: Any) -> LoraConfig | None:
    """The configuration of the adapter that the trainer adds to the model; None where it adds none.

    Raises ``StageError`` (MODEL) where the model has not all modules that are named: PEFT is content with one of them.
    """
    if adapter is None or adapter.initial is not None:
        return None
    arguments = lora_arguments(adapter.lora or Lora())
    named = arguments["target_modules"]
    modules = [name for name, _ in model.named_modules()]
    missing = [] if isinstance(named, str) else [name for name in named if not _is_among(name, modules)]
    if missing:
        linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, Linear)}
        there = ", ".join(sorted(linear - {"lm_head"}))
        raise target_error(adapter, f"the model has no module {', '.join(missing)}; its linear ones are {there}")
    return LoraConfig(**arguments)


def _is_among(name: str, modules: list[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for module in modules)


def target_error(adapter: Adapter, message: str) -> StageError:
    """The error for modules that cannot be adapted."""
    field = ADAPTER_INPUT if adapter.initial is not None else "adapter.lora.targetModules"
    return StageError(ExitCode.MODEL, "TargetModulesMissing", f"spec.{field}: {message}")


@dataclass(frozen=True)
class Exported:
    """What the artifact is saved from."""

    model: Any
    """The whole model, or the adapter; only the leading rank needs it."""
    weights: Mapping[str, Any] | None = None
    """Its weights, when the model itself is split among the ranks."""


def exported(trainer: Any, context: StageContext[FineTuneStage]) -> Exported:
    """The model that the artifact holds: whole, or the adapter that names its base by where it was read.

    Every rank has to call it.
    """
    spec, model = context.config.spec, trainer.model
    split = spec.distributed.strategy in ("zero3", "fsdp2")
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if split else None
    if spec.adapter is None or gang.rank() != 0:
        return Exported(model, weights)
    for name in set(model.peft_config) - {_TRAINED}:
        model.delete_adapter(name)  # the reference of preferences
    if not spec.export.merge:
        base = context.input("model").uri
        model.peft_config[_TRAINED].base_model_name_or_path = hub_model(base) or base
        return Exported(model, weights)
    if split or spec.adapter.quantization is not None:
        return Exported(_merged_into_whole_base(model, weights, context))
    return Exported(model.merge_and_unload())


def _merged_into_whole_base(model: Any, weights: Mapping[str, Any] | None, context: StageContext[FineTuneStage]) -> Any:
    """The adapter merged into the base model as it was read.

    Merging into quantized weights would round them again, and weights that are split cannot be merged into.
    """
    folder = context.scratch / "adapter"
    model.save_pretrained(folder, state_dict=weights)
    unset_hf_deepspeed_config()  # else the base would be split while it is read
    base = load_model(context.input_path("model"), context.config.spec.training)
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
