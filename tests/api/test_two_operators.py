"""T5: two operators and one Lease. Whoever holds it acts, and whoever held it before does not."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.api_client import Server
from support.arena import ONE_OF_EACH, Outcome, arena, undisturbed
from support.pod_lives import works_until
from support.replicas import Replica, Replicas, now, two_operators
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

FIRST, SECOND = ONE_OF_EACH[:2], ONE_OF_EACH[2:]
TAKE_OVERS = 20
AT_ONCE = 1.0
"""Seconds in which what was on its way comes out of a process that goes on."""


@contextmanager
def at_work(server: Server, folder: Path, over: threading.Event) -> Iterator[Replicas]:
    """Two operators, one of which has brought some jobs as far as Running; they end after the event."""
    with arena(server, folder, life=works_until(over)) as run, two_operators(run, folder) as pair:
        run.submit(*FIRST)
        wait_for(lambda: run.witness.outcomes()["Running"] == len(FIRST), "the jobs to run")
        yield pair


def goes_away(pair: Replicas, holder: Replica, successor: Replica, stop: str) -> float:
    """The holder is killed, or stopped for longer than its lease; returns when the other began to act."""
    assert successor.wrote() == []
    since = now()
    getattr(holder.operator, stop)()
    pair.run.submit(*SECOND)
    return pair.wait_taken_over(successor, since)


def check(pair: Replicas, expected: Outcome) -> None:
    """Everything is as with one operator."""
    pair.run.wait_equal(expected)
    assert pair.run.witness.doubles() == []
    assert pair.run.witness.regressions() == []


def test_the_other_takes_over_from_one_that_was_killed(server: Server, tmp_path: Path) -> None:
    over = threading.Event()
    expected, _ = undisturbed(server)
    with at_work(server, tmp_path, over) as pair:
        goes_away(pair, *pair.by_turns(), "kill")
        over.set()
        check(pair, expected)


def test_one_that_comes_back_writes_nothing(server: Server, tmp_path: Path) -> None:
    over = threading.Event()
    expected, _ = undisturbed(server)
    with at_work(server, tmp_path, over) as pair:
        old, new = pair.by_turns()
        taken_over = goes_away(pair, old, new, "pause")
        old.operator.resume()
        over.set()
        check(pair, expected)
        old.wait_standing_by()
        assert old.wrote(taken_over) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("stop", "back"), [("kill", "start"), ("pause", "resume")])
def test_many_take_overs_at_random_moments(server: Server, tmp_path: Path, stop: str, back: str) -> None:
    rounds = [tuple((kind, f"{name}{turn}") for kind, name in ONE_OF_EACH) for turn in range(2 * TAKE_OVERS)]
    expected, _ = undisturbed(server, tuple(job for jobs in rounds for job in jobs))
    chance = random.Random(stop)
    with arena(server, tmp_path) as run, two_operators(run, tmp_path) as pair:
        for before, after in zip(rounds[::2], rounds[1::2], strict=True):
            holder, successor = pair.by_turns()
            run.submit(*before)
            time.sleep(chance.uniform(0, 2))  # the moment of the end is what is tried here
            since = now()
            getattr(holder.operator, stop)()
            run.submit(*after)
            taken_over = pair.wait_taken_over(successor, since)
            returned = time.monotonic()
            getattr(holder.operator, back)()
            holder.operator.wait_ready()
            holder.wait_standing_by()
            late = holder.wrote(taken_over)
            # Nobody can take back bytes that were half on their way when the process was stopped; names and resource
            # versions see to it that such a request doubles nothing.
            assert len(late) <= 1, late
            assert all(write.at - returned < AT_ONCE for write in late), late
        check(pair, expected)
