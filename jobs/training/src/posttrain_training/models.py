"""Loading a model folder that ``folders.check_model_folder`` has let through."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.training import Training
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from posttrain_training.folders import code_wanted, model_error
from posttrain_training.gang import first_line

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def quiet() -> None:
    """Stops progress bars, since progress is told by the stage, and a warning that the library gives to itself."""
    os.environ["TQDM_DISABLE"] = "1"
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


def load_model(
    folder: Path, training: Training, *, quantization: Literal["nf4", "int8"] | None = None, device: Any = "cpu"
) -> Any:
    """A causal language model with its weights in the precision, and the attention, of ``training``, on the CPU.

    Quantized weights are on ``device``, where they are made. Raises ``StageError`` (MODEL).
    """
    dtype = _DTYPES[training.precision]
    # Weights that are quantized on the way in have to be where they will stay.
    quantized = (
        {}
        if quantization is None
        else {"quantization_config": _quantization(quantization, dtype), "device_map": {"": device}}
    )
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=training.attention,
            use_safetensors=True,
            trust_remote_code=False,
            **quantized,
        )
    except ImportError as error:
        raise StageError(
            ExitCode.MODEL,
            "AttentionUnavailable",
            f"spec.training.attention: {training.attention} cannot be used here ({first_line(error)}); take sdpa, or "
            "an image that has it",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise code_wanted(folder, "auto_map in config.json") from error
        raise model_error(
            "ModelBroken",
            f"the model in {shown_name(folder)} cannot be loaded ({error}); copy the folder anew, or save the model "
            "into it with a transformers release that this one can read (model.save_pretrained)",
        ) from error


def _quantization(name: Literal["nf4", "int8"], dtype: torch.dtype) -> BitsAndBytesConfig:
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def count_trained(model: Any) -> int:
    """Weights that are trained, which are the ones that a checkpoint holds; a shared one counts once."""
    return sum(size(parameter) for parameter in model.parameters() if parameter.requires_grad)


def size(parameter: Any) -> int:
    """How many weights a parameter has. ZeRO-3 leaves empty tensors in their place and notes how many they were."""
    count: int = getattr(parameter, "ds_numel", parameter.numel())
    return count
