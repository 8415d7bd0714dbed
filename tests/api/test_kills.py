"""The operator is killed, and the API server restarted, at random moments while many jobs are under way.

Every job comes to its right end all the same, with exactly the children that it has in an undisturbed run.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from posttrain_contract.exit_codes import ExitCode
from support.api_client import Server
from support.arena import ONE_OF_EACH, Arena, Jobs, arena, undisturbed
from support.control_plane import ControlPlane
from support.faults import children_and_status
from support.kubelet import Life
from support.pod_lives import at_attempt, fails
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

PREEMPTED_ONCE: Life = at_attempt({1: fails(ExitCode.PREEMPTED, "Stopped", "the node was needed")})
SHARE = 0.9
"""Of the writes that are needed, those among which the moments are drawn: so that all of them come."""


def jobs(number: int) -> Jobs:
    """So many jobs, of each kind as many."""
    return tuple((kind, f"{name}{index}") for index in range(number // len(ONE_OF_EACH)) for kind, name in ONE_OF_EACH)


def at_random_moments(run: Arena, needed: int, number: int, *, seed: int = 0) -> Iterator[None]:
    """Comes as often as it should, each time when so many changes were asked for as a draw says."""
    moments = random.Random(seed).sample(range(1, int(SHARE * needed)), number)
    for moment in sorted(moments):
        wait_for(partial(_has_written, run, moment), f"{moment} changes")
        yield


def come_right(
    server: Server,
    folder: Path,
    work: Jobs,
    *,
    times: int,
    disturb: Callable[[Arena], None],
    seconds: float,
    pods: bool = True,
) -> None:
    """Jobs under way are disturbed so many times, and then everything is as if they had not been."""
    expected, requests = undisturbed(server, work, PREEMPTED_ONCE)
    needed = sum(n for what, n in requests.items() if _changes(what))
    with arena(server, folder, life=PREEMPTED_ONCE) as run:
        run.submit(*work)
        for _ in at_random_moments(run, needed, times):
            disturb(run)
        run.wait_equal(expected, seconds=seconds, pods=pods)
        assert run.witness.doubles() == []
        assert run.witness.regressions() == []
        wait_for(lambda: run.witness.orphans() == [], "pods to follow their servers", seconds=60)


def kill(run: Arena) -> None:
    """The operator ends wherever it is, and is started again at once."""
    run.operator.kill()
    run.operator.start()


def restarting(plane: ControlPlane) -> Callable[[Arena], None]:
    """The API server ends wherever it is, and is started again at once."""

    def restart(_: Arena) -> None:
        plane.stop_api_server()
        plane.start_api_server()

    return restart


def test_some_kills_change_nothing(server: Server, tmp_path: Path) -> None:
    come_right(server, tmp_path, jobs(20), times=5, disturb=kill, seconds=120)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_kills_change_nothing(server: Server, tmp_path: Path) -> None:
    come_right(server, tmp_path, jobs(100), times=50, disturb=kill, seconds=300)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "times"), [(20, 1), (100, 3)])
def test_restarts_of_the_api_server_change_nothing(
    own_control_plane: ControlPlane, tmp_path: Path, number: int, times: int
) -> None:
    """But for the number of pods: Kubernetes' own Job controller makes some again of which it lost sight."""
    access = own_control_plane.access
    server = Server(access.url, access.admin_token, access.ca_file)
    restart = restarting(own_control_plane)
    come_right(server, tmp_path, jobs(number), times=times, disturb=restart, seconds=300, pods=False)


def _has_written(run: Arena, number: int) -> bool:
    """Whether the operator has asked for so many changes."""
    return sum(children_and_status(entry.request) for entry in [*run.proxy.writes]) >= number


def _changes(what: str) -> bool:
    verb, resource = what.split()
    return verb in ("create", "patch", "update", "delete") and resource not in ("leases", "events")
