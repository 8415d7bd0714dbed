"""Writing a model folder that every reader of Hugging Face models understands."""

import shutil
from pathlib import Path
from typing import Any


def save(model: Any, *, tokenizer: Any, folder: Path) -> None:
    """Saves weights (safetensors), configuration, generation settings, tokenizer and chat template.

    ``folder`` is made anew. An adapter is saved as an adapter; merge it first to save a whole model.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model.config.use_cache = True  # trainers turn it off, and whoever generates with the model wants it
    model.save_pretrained(folder)
    for name in ("is_local", "local_files_only"):  # how this process found it
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.save_pretrained(folder)
