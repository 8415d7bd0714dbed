"""Looking at a model folder before any library is loaded: a folder that cannot be trained is refused at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name

_FIELD = "spec.model"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_model_folder(folder: Path) -> None:
    """Raises ``StageError`` (MODEL) for a folder that is no whole model with a tokenizer, or one nobody can train."""
    if not folder.is_dir():
        raise model_error(
            "NotAModelFolder", f"{shown_name(folder)} is not a folder; name the folder that has config.json"
        )
    if not (folder / "config.json").is_file():
        raise _no_model(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise model_error(
            "TokenizerMissing",
            f"{shown_name(folder)} has no tokenizer: one of {', '.join(_TOKENIZER_FILES)} is needed; save the "
            "tokenizer into the model folder (tokenizer.save_pretrained)",
        )
    _check_config(folder)


def _check_config(folder: Path) -> None:
    config = _config(folder)
    if "auto_map" in config and not _is_known(str(config.get("model_type"))):
        raise code_wanted(folder, f"auto_map in config.json, of model_type {config.get('model_type')!r}")
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        raise model_error(
            "ModelQuantized",
            f"{shown_name(folder)} is quantized already (quantization_config in config.json: "
            f"{quantized.get('quant_method', 'unknown')}), and such weights cannot be trained; name the model with its "
            "whole weights, which adapter.quantization of a FineTuneJob quantizes while they are loaded",
        )


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise model_error(
            "ConfigBroken", f"config.json of {shown_name(folder)} is no JSON object; copy the folder anew"
        )
    return config


def _is_known(model_type: str) -> bool:
    """Whether the library has a model's code itself: many models bring code that it needs no more."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415 - it takes seconds

    return model_type in CONFIG_MAPPING_NAMES


def code_wanted(folder: Path, where: str) -> StageError:
    """The error for a model that brings code of its own, which would run with the rights of the job."""
    return model_error(
        "RemoteCode",
        f"{shown_name(folder)} asks for code of its own ({where}: trust_remote_code), and none is run; take a model "
        "whose code transformers has, or an image with a newer transformers that has it",
    )


def _no_model(folder: Path) -> StageError:
    if (folder / "adapter_config.json").is_file():
        return model_error(
            "AdapterOnly",
            f"{shown_name(folder)} holds an adapter without its base model; publish the whole model with "
            "export.merge: true",
        )
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    return model_error(
        "NotAModelFolder", f"{shown_name(folder)} has no config.json; it has {there}; name the folder that has it"
    )


def model_error(reason: str, message: str) -> StageError:
    """The error for a model that cannot be used."""
    return StageError(ExitCode.MODEL, reason, f"{_FIELD}: {message}")
