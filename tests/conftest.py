"""What holds for every test."""

import os

import pytest

# One thread a process: more only wait for one another on small models. And no test asks a hub for anything.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write what the golden tests expect anew")


@pytest.fixture(scope="session")
def write_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden tests shall write their expected files instead of comparing with them."""
    return bool(request.config.getoption("--write-golden"))
