"""How attempts end, and what follows: every story is told by the operator itself, against the real API server."""

import threading

import pytest
from support.playground import PlayedJob, Playground
from support.stories import STORIES, all_running, tell

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def jobs(_ground: Playground) -> dict[str, PlayedJob]:
    """A job for each story; what happens to it happens when all are at work."""
    gate = threading.Event()
    jobs = tell(_ground, STORIES, {1: gate})
    all_running(jobs.values(), attempt=1)
    gate.set()
    return jobs


@pytest.mark.parametrize("story", STORIES)
def test_a_job_comes_to_its_end(ground: Playground, jobs: dict[str, PlayedJob], story: str) -> None:
    STORIES[story].check(jobs[story])
