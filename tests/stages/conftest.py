"""What the stage tests share."""

from pathlib import Path

import pytest
from support.tiny import make_tiny_inputs


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``base-model``, ``train.jsonl`` and ``heldout.jsonl``."""
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_inputs(folder)
    return folder
