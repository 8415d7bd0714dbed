"""T2: the API server refuses, breaks off and keeps silent, and denies every change twice; it only costs time."""

from collections import Counter
from pathlib import Path

import pytest
from support.api_client import Server
from support.arena import ONE_OF_EACH, Jobs, arena, undisturbed
from support.faults import Answer, DenyTwice, Reset, Rule, Silence, Sometimes
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

ON_READS = (Answer(429, retry_after=1), Answer(500), Answer(503), Reset(), Reset(answered=True))
ON_WRITES = (*ON_READS, Answer(409))
MOST = 3
"""Requests in units of those of the undisturbed run."""


def errors(rate: float, silence: Silence) -> list[Rule]:
    """Every kind of error, each as likely as the others."""
    return [
        Sometimes(rate, (*ON_WRITES, silence), which=lambda request: request.mutating),
        Sometimes(rate, (*ON_READS, silence), which=lambda request: not request.mutating),
    ]


def many(number: int) -> Jobs:
    """So many of each kind."""
    return tuple((kind, f"{name}{index}") for index in range(number) for kind, name in ONE_OF_EACH)


def run_disturbed(server: Server, folder: Path, jobs: Jobs, *rules: Rule, seconds: float = 120) -> None:
    """Jobs end as if nothing had happened, nobody is told of a failure on the way, and it takes few requests."""
    expected, requests = undisturbed(server, jobs)
    with arena(server, folder, *rules) as run:
        run.submit(*jobs)
        run.wait_equal(expected, seconds=seconds)
        seen = [status for statuses in run.witness.statuses.values() for status in statuses]
        assert run.witness.doubles() == []
        wait_for(lambda: run.witness.orphans() == [], "pods to follow their servers", seconds=60)
        assert not any(status.phase == "Failed" for status in seen)
        assert not any(len(status.attempts) > 1 for status in seen)
        assert writes(run.proxy.counts) <= MOST * writes(requests)


def writes(counts: Counter[str]) -> int:
    """Requests that change something for a job; Leases are renewed by the clock."""
    counted = ("create", "patch", "update", "delete")
    return sum(n for what, n in counts.items() if what.split()[0] in counted and "leases" not in what)


def test_errors_only_cost_time(server: Server, tmp_path: Path) -> None:
    jobs = many(3)
    run_disturbed(server, tmp_path, jobs, *errors(0.3, Silence(0.5, forwarded=True)))


@pytest.mark.parametrize("status", [409, 503])
def test_changes_that_are_denied_twice_happen(server: Server, tmp_path: Path, status: int) -> None:
    run_disturbed(server, tmp_path, ONE_OF_EACH, DenyTwice(Answer(status)))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_many_jobs_survive_errors(server: Server, tmp_path: Path, rate: float) -> None:
    jobs = many(50)
    run_disturbed(server, tmp_path, jobs, *errors(rate, Silence(20, forwarded=True)), seconds=600)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_many_changes_that_are_denied_twice_happen(server: Server, tmp_path: Path, status: int) -> None:
    jobs = many(50)
    run_disturbed(server, tmp_path, jobs, DenyTwice(Answer(status)), seconds=600)
