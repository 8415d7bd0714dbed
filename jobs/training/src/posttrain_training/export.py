"""Writing a model folder that every reader of Hugging Face models understands."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

_SHARD: Final = "5GB"
"""The largest file of weights: what the Hub and slow links like."""


def save(model: Any, *, tokenizer: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> int:
    """Saves weights (safetensors), configuration, generation settings, tokenizer and chat template.

    ``weights`` are those of a model that is split among the ranks. ``folder`` is made anew. An adapter is saved as an
    adapter; merge it first to save a whole model. Returns the number of weights in the folder, a shared one counted
    once: of an adapter they are the adapter's alone.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model.config.use_cache = True  # trainers turn it off, and whoever generates with the model wants it
    model.save_pretrained(folder, state_dict=weights, max_shard_size=_SHARD)
    for name in ("is_local", "local_files_only"):  # how this process found it
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.save_pretrained(folder)
    return sum(_count_weights(file) for file in folder.glob("*.safetensors"))


def _count_weights(file: Path) -> int:
    """From the file's header; the tensors are not read."""
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 - no mapping
