"""Looking at a model folder before any library is loaded: a folder that cannot be trained is refused at once."""

from pathlib import Path

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError

_FIELD = "spec.model"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_model_folder(folder: Path) -> None:
    """Raises ``StageError`` (MODEL) when the folder is no whole model with a tokenizer."""
    if not folder.is_dir():
        raise model_error("NotAModelFolder", f"{folder.name} is not a folder; name the folder that has config.json")
    if not (folder / "config.json").is_file():
        raise _no_model(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise model_error(
            "TokenizerMissing",
            f"{folder.name} has no tokenizer: one of {', '.join(_TOKENIZER_FILES)} is needed; save the tokenizer into "
            "the model folder (tokenizer.save_pretrained)",
        )


def _no_model(folder: Path) -> StageError:
    if (folder / "adapter_config.json").is_file():
        return model_error(
            "AdapterOnly",
            f"{folder.name} holds an adapter without its base model; publish the whole model with export.merge: true",
        )
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    return model_error(
        "NotAModelFolder", f"{folder.name} has no config.json; it has {there}; name the folder that has it"
    )


def model_error(reason: str, message: str) -> StageError:
    """The error for a model that cannot be used."""
    return StageError(ExitCode.MODEL, reason, f"{_FIELD}: {message}")
