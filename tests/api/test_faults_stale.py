"""T4: the operator sees the cluster as it was; it makes nothing twice and deletes nothing that it has not seen."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.api_client import Json, Server
from support.arena import ONE_OF_EACH, Arena, arena, undisturbed
from support.pod_lives import works_until
from support.stale_view import StaleView
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

KIND, NAME = "FineTuneJob", "x"


@contextmanager
def behind(run: Arena, lag: float) -> Iterator[StaleView]:
    """The operator's view is so many seconds old from now on; it is started anew, lest its watches be older."""
    view = StaleView(lag)
    with view.recording(run.ask):
        run.proxy.rules = [view]
        run.operator.kill()
        run.operator.start()
        run.operator.wait_ready()
        yield view


def check(run: Arena) -> None:
    assert run.witness.doubles() == []
    assert run.witness.regressions() == []
    for write in run.proxy.writes:
        if write.request.verb == "delete":
            assert isinstance(write.request.body, dict)
            assert write.request.body["preconditions"]["uid"], write.request


def sees_nothing_twice(server: Server, folder: Path, lag: float) -> None:
    expected, _ = undisturbed(server)
    with arena(server, folder) as run, behind(run, lag):
        run.submit(*ONE_OF_EACH)
        run.wait_equal(expected, seconds=60 + 10 * lag)
        check(run)


def starts_in_the_past(server: Server, folder: Path, lag: float) -> None:
    """The operator is killed when everything runs, and its successor sees the time before that.

    Services are not watched: those that its first list does not show are found by a sweep.
    """
    over = threading.Event()
    expected, _ = undisturbed(server)
    with arena(server, folder, life=works_until(over), sweep_interval="2s") as run, behind(run, 0) as view:
        run.submit(*ONE_OF_EACH)
        wait_for(lambda: run.witness.outcomes()["Running"] == len(ONE_OF_EACH), "every job to run")
        view.lag = lag
        run.operator.kill()
        run.operator.start()
        run.operator.wait_ready()
        over.set()
        run.wait_equal(expected, seconds=60 + 10 * lag)
        check(run)


def tells_namesakes_apart(server: Server, folder: Path, lag: float) -> None:
    """A job is deleted and made again with the same name, while the operator still sees the first."""
    over = threading.Event()
    with arena(server, folder, life=works_until(over)) as run, behind(run, 0) as view:
        run.submit((KIND, NAME))
        wait_for(lambda: run.witness.outcomes()["Running"] == 1, "the job to run")
        (old,) = run.witness.jobs()
        view.lag = lag
        run.delete(KIND, NAME)
        run.submit((KIND, NAME))
        wait_for(lambda: newer(run, old) is not None, "the second job")
        over.set()
        run.wait_finished(1, seconds=60 + 10 * lag)
        new = newer(run, old)
        assert new is not None
        wait_for(lambda: children(run.witness.present.values(), old) == [], "the first job's children to go")
        made = children(run.witness.births, new)
        assert made == sorted(set(made)), "each child of the second job is made once"
        assert children(run.witness.deaths, new) == [], "none of them is deleted"
        check(run)


def newer(run: Arena, old: Json) -> Json | None:
    return next((job for job in run.witness.jobs() if job["metadata"]["uid"] != old["metadata"]["uid"]), None)


def children(objects: Iterable[Json], owner: Json) -> list[str]:
    """What the operator made for a job, of these objects."""
    uid = owner["metadata"]["uid"]
    owned = [obj for obj in [*objects] if uid in [ref["uid"] for ref in obj["metadata"].get("ownerReferences", [])]]
    return sorted(f"{obj['kind']}/{obj['metadata']['name']}" for obj in owned)


def test_an_old_view_doubles_nothing(server: Server, tmp_path: Path) -> None:
    sees_nothing_twice(server, tmp_path, lag=1.5)


def test_a_successor_with_an_old_view_doubles_nothing(server: Server, tmp_path: Path) -> None:
    starts_in_the_past(server, tmp_path, lag=3)


def test_an_old_view_does_not_mix_up_namesakes(server: Server, tmp_path: Path) -> None:
    tells_namesakes_apart(server, tmp_path, lag=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", [sees_nothing_twice, starts_in_the_past, tells_namesakes_apart])
def test_half_a_minute_behind(server: Server, tmp_path: Path, scenario: Callable[[Server, Path, float], None]) -> None:
    scenario(server, tmp_path, 30)
