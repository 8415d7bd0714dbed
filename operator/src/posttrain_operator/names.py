"""Deterministic names of children: readable, unique, at most 50 characters."""

import hashlib
from typing import Final

MAX_LENGTH: Final = 50
"""PyTorchJob pods append a role and an index to the name, and the sum must be a DNS label of 63."""
_HASH_LENGTH: Final = 10


def child(name: str, stage: str, attempt: int) -> str:
    """The name of an attempt's child, such as ``sft-finetune-2``."""
    return _fit(name, f"-{stage}-{attempt}")


def config_map(name: str, stage: str, content: str) -> str:
    """The name of a ConfigMap by its content, such as ``sft-finetune-3f1c9a02be``: same content, same name."""
    return _fit(name, f"-{stage}-{_hash(content)}")


def _fit(name: str, suffix: str) -> str:
    if len(name) + len(suffix) <= MAX_LENGTH:
        return name + suffix
    kept = MAX_LENGTH - len(suffix) - _HASH_LENGTH - 1
    return f"{name[:kept].rstrip('-')}-{_hash(name)}{suffix}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
