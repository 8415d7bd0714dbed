"""What the tests of the local executor share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pipeline import Pipeline
from support.tiny import quickstart


@pytest.fixture(scope="session")
def quickstart_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's inputs for the default seed, as its script makes them."""
    folder = tmp_path_factory.mktemp("quickstart")
    quickstart().make_inputs(folder, seed=0)
    return folder


@pytest.fixture
def pipeline(tmp_path: Path, quickstart_inputs: Path) -> Iterator[Pipeline]:
    """A pipeline of which nothing runs on when its test has ended, however that ended."""
    pipeline = Pipeline(tmp_path, quickstart_inputs)
    yield pipeline
    pipeline.kill()
