"""T3: watches are cut, expire, fall silent, lose events and mix them up; every job ends as if they had not."""

from collections import Counter
from pathlib import Path

import pytest
from support.api_client import Server
from support.arena import ONE_OF_EACH, Jobs, arena, undisturbed
from support.faults import Fault, Request, Rule, Shaped, Watches
from support.watch_faults import Shape, chained, cut, dropping_each_once, gone, reordered, silent

pytestmark = pytest.mark.timeout(300)


class InTurn:
    """Every watch of a kind that is opened gets the next shape, and after the last one it is left alone."""

    def __init__(self, *shapes: Shape) -> None:
        self._shapes = shapes
        self._opened: Counter[str] = Counter()

    def __call__(self, request: Request) -> Fault | None:
        if request.verb != "watch":
            return None
        number = self._opened[request.path]
        self._opened[request.path] += 1
        return Shaped(self._shapes[number]) if number < len(self._shapes) else None


def run_disturbed(server: Server, folder: Path, jobs: Jobs, *rules: Rule, sweep_interval: str = "60s") -> None:
    """Jobs end as in the undisturbed run, within the time that is promised."""
    expected, _ = undisturbed(server, jobs)
    with arena(server, folder, *rules, sweep_interval=sweep_interval) as run:
        run.submit(*jobs)
        run.wait_equal(expected, seconds=90)
        assert run.witness.doubles() == []
        assert run.witness.regressions() == []


def test_watches_that_end_are_taken_up_again(server: Server, tmp_path: Path) -> None:
    shapes = [cut(0.3), gone(0.3), dropping_each_once(), cut(0.5), gone(0.5), reordered(0.2)]
    run_disturbed(server, tmp_path, ONE_OF_EACH, InTurn(*shapes), sweep_interval="2s")


def test_watches_that_say_nothing_are_made_up_for(server: Server, tmp_path: Path) -> None:
    run_disturbed(server, tmp_path, ONE_OF_EACH, Watches(silent(0)), sweep_interval="2s")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([Watches(cut(5))], id="cut"),
        pytest.param([Watches(gone(5))], id="gone"),
        pytest.param([InTurn(silent(0))], id="black-holed"),
        pytest.param([Watches(chained(dropping_each_once(), cut(5)))], id="dropped"),
        pytest.param([Watches(reordered(1))], id="reordered"),
    ],
)
def test_no_event_is_lost_for_good(server: Server, tmp_path: Path, rules: list[Rule]) -> None:
    jobs = tuple((kind, f"{name}{index}") for index in range(10) for kind, name in ONE_OF_EACH)
    run_disturbed(server, tmp_path, jobs, *rules)
