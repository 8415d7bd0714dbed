"""A process may end at any write: the next one, which knows nothing, goes on the same way."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from support.scene import SUCCESS, Scene, crash_at, failure

Script = Callable[[Scene], Iterator[None]]


def succeeds(scene: Scene) -> Iterator[None]:
    for _ in range(2):  # servers, then trainer
        scene.start_pods()
        yield
    scene.end_workers(0, SUCCESS)
    yield
    scene.end_stopped_pods()


def fails_then_succeeds(scene: Scene) -> Iterator[None]:
    for _ in range(2):
        scene.start_pods()
        yield
    scene.end_workers(147, failure(ExitCode.STORAGE))
    yield
    scene.end_stopped_pods()
    scene.wait()
    yield
    yield from succeeds(scene)


def fails_by_a_server(scene: Scene) -> Iterator[None]:
    for _ in range(2):
        scene.start_pods()
        yield
    for pod in scene.pods("servers"):
        scene.end(pod, 65, failure(ExitCode.MODEL, "NoTokenizer"))
    yield
    scene.end_stopped_pods()


def is_suspended_then_succeeds(scene: Scene) -> Iterator[None]:
    for _ in range(2):
        scene.start_pods()
        yield
    scene.cluster.edit(scene.ref, run={"suspend": True})
    yield
    scene.end_stopped_pods()
    yield
    scene.cluster.edit(scene.ref, run={})
    yield
    yield from succeeds(scene)


def exceeds_its_deadline(scene: Scene) -> Iterator[None]:
    scene.cluster.edit(scene.ref, run={"deadline": "30m"})
    scene.start_pods()
    yield
    scene.wait()
    yield
    scene.end_stopped_pods()


def played(script: Script, kind: str, *, before: int = -1, after: int = -1) -> tuple[list[Any], int]:
    """What is there after each scene of a script, and the writes it took; a process ends at one of them."""
    scene = Scene(kind)
    scene.cluster.before_write, scene.cluster.after_write = crash_at(before), crash_at(after)
    scene.settle()
    seen = []
    for _ in script(scene):
        scene.settle()
        seen.append((scene.children, [str(pod) for pod in scene.pods()], scene.status))
    scene.settle()
    return [*seen, (scene.children, [str(pod) for pod in scene.pods()], scene.status)], scene.cluster.tries


@pytest.mark.parametrize("kind", ["FilterJob", "RLJob"])
@pytest.mark.parametrize(
    "script", [succeeds, fails_then_succeeds, fails_by_a_server, is_suspended_then_succeeds, exceeds_its_deadline]
)
def test_a_process_that_ends_at_any_write_leaves_the_next_one_on_the_same_way(script: Script, kind: str) -> None:
    expected, writes = played(script, kind)
    for number in range(writes):
        assert played(script, kind, before=number)[0] == expected, f"ended before write {number}"
        assert played(script, kind, after=number)[0] == expected, f"ended after write {number}"
