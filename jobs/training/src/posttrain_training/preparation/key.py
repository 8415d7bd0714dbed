"""The name of a prepared dataset: equal bytes, settings and programs have equal names, and nothing else has."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from posttrain_contract.examples import ExampleDataset
from posttrain_contract.stage import canonical
from posttrain_runtime.files import sha256

VERSION: Final = 3
"""Raised with every change of this package that changes what comes out of it."""
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_ELSEWHERE: Final = ("from_", "uri")
"""Where the bytes were read does not matter."""


@dataclass(frozen=True)
class Shape:
    """What becomes of the rows."""

    max_length: int
    packing: bool
    validation: bool = False
    """Whether it is the share that is set aside, or the rest."""


def content_key(dataset: ExampleDataset, files: Sequence[Path], *, model: Path, shape: Shape) -> str:
    """SHA-256 over all that decides the prepared rows; reads every byte of the files."""
    document: dict[str, Any] = {
        "version": VERSION,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "transformers": importlib.metadata.version("transformers"),
        "files": [sha256(file) for file in files],
        "tokenizer": {name: sha256(model / name) for name in _TOKENIZER_FILES if (model / name).is_file()},
        "dataset": {name: value for name, value in dataset.model_dump().items() if name not in _ELSEWHERE},
        "shape": asdict(shape),
    }
    return hashlib.sha256(canonical(document).encode()).hexdigest()
