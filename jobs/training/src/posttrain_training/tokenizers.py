"""Loading the tokenizer of a model folder, without what loads models."""

from pathlib import Path
from typing import Any

from posttrain_runtime.store import shown_name
from transformers import AutoTokenizer

from posttrain_training.folders import code_wanted, model_error


def load_tokenizer(folder: Path, *, template: str | None = None, plain: bool = False) -> Any:
    """The tokenizer of a model folder, with a chat template, an end and a padding token.

    ``template`` takes the place of its chat template; ``plain`` text needs none. Raises ``StageError`` (MODEL).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise code_wanted(folder, "auto_map in tokenizer_config.json") from error
        raise model_error(
            "TokenizerBroken",
            f"the tokenizer of {shown_name(folder)} cannot be loaded ({error}); save it into the model folder anew "
            "(tokenizer.save_pretrained)",
        ) from error
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.chat_template is None and not plain:
        raise model_error(
            "ChatTemplateMissing",
            f"the tokenizer of {shown_name(folder)} has no chat template; add chat_template.jinja to the model folder, "
            "or set dataset.template of a FineTuneJob to chatml, llama2 or alpaca",
        )
    if tokenizer.eos_token_id is None:
        raise model_error(
            "EndTokenMissing",
            f"the tokenizer of {shown_name(folder)} names no eos_token; set tokenizer.eos_token and save the tokenizer "
            "into the model folder (tokenizer.save_pretrained)",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
