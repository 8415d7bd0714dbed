"""Fifty RLJobs over a queue that fits three: each takes its quota in two halves, and none of them waits for ever."""

import random
from datetime import timedelta

import pytest
from posttrain_operator.plan import queueing
from posttrain_operator.settings import Settings
from support.acquisition import Misfortune, Queue, Simulation

LIMIT = timedelta(hours=3)
"""Ten times what a run takes."""
FOR_EVER = Settings(queue_hold=timedelta(days=365))


def simulation(seed: int) -> Simulation:
    """A run with its own kind of queue and its own amount of misfortune."""
    chance = random.Random(seed)
    misfortune = Misfortune(
        failures=chance.uniform(0, 0.3),
        preemptions=chance.uniform(0, 0.3),
        crashes=chance.uniform(0, 0.03),
        strangers=chance.randrange(10),
    )
    return Simulation(seed, queue=Queue(strict=chance.random() < 0.5), misfortune=misfortune)


def deadlock(seed: int, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """Twenty jobs that come at once, with the line switched off: six servers hold all there is."""
    with monkeypatch.context() as switched:
        switched.setattr(queueing, "turn", lambda *_, **__: None)
        run = Simulation(seed, jobs=20, arrivals=0.1, misfortune=Misfortune(0, 0, 0, 0), settings=FOR_EVER)
        assert not run.run(timedelta(minutes=2))
    return run


def check(seed: int) -> None:
    run = simulation(seed)
    assert run.run(LIMIT), f"seed {seed}: {run.unfinished()} have not finished"
    assert run.overtaken() == [], f"seed {seed}: overtaken by one that came later"


@pytest.mark.parametrize("seed", range(10))
def test_all_finish_and_who_comes_first_is_admitted_first(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", range(10, 1010, 100))
def test_all_finish_with_a_thousand_seeds_more(first: int) -> None:
    for seed in range(first, first + 100):
        check(seed)


@pytest.mark.parametrize("seed", range(2))
def test_the_line_alone_prevents_the_deadlock(seed: int) -> None:
    run = Simulation(seed, jobs=20, arrivals=10, misfortune=Misfortune(strangers=0), settings=FOR_EVER)
    assert run.run(LIMIT), run.unfinished()


@pytest.mark.parametrize("seed", range(2))
def test_without_the_line_servers_hold_all_there_is_and_no_trainer_comes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = deadlock(seed, monkeypatch)
    assert len(run.unfinished()) == run.jobs
    assert run.holders() == ["StatefulSet"] * run.queue.capacity


@pytest.mark.parametrize("seed", range(2))
def test_a_deadlock_that_is_there_already_is_resolved(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = deadlock(seed, monkeypatch)
    run.settings = Settings(queue_hold=timedelta(minutes=1))
    assert run.run(LIMIT), run.unfinished()
    assert any(record.set_back for record in run.records.values())
