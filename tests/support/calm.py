"""The time after all disturbances: nobody interferes any more, and everything must come to its right end by itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.status import Status
from posttrain_operator.cluster import Ref
from posttrain_operator.plan.attempts import failures
from posttrain_operator.status import seen_status
from support.memory_world import World
from support.scene import failure

RETRIES: Final = 2
RUN: Final[Mapping[str, Any]] = {"retries": RETRIES, "suspend": None, "deadline": None, "pendingDeadline": None}
"""What the user wants in the end, in whatever queue; a script may want something else of ``x``."""
_PATIENCE: Final = timedelta(hours=3)
"""Pauses between attempts are minutes long; whatever waits longer waits for nothing."""
_TURNS: Final = 600


@dataclass(frozen=True)
class Script:
    """What the user wants and what pods do, and what must come of it."""

    goal: Callable[[Status], bool]
    judge: Callable[[Status, Status], None]
    """Called with the status before and after."""
    act: Callable[[World, Ref, Status], bool] = lambda *_: False
    """Moves pods on when nothing else moves; whether there was something to do."""
    run: Mapping[str, Any] = field(default_factory=dict)


def come(world: World, script: str) -> None:
    """Ends every disturbance, lets what is under way come out, and then follows the script with ``x``."""
    world.cluster.catch_up()
    world.skew = timedelta()
    world.cluster.refusal = lambda _: None
    world.somebody_gives_names_back()
    for ref in world.refs:
        world.apply(ref)
        world.edit(ref, **RUN)
    calm = _Calm(world)
    calm.play(lambda: all(calm.has_come_out(ref) for ref in world.refs))
    if world.up in world.refs:
        calm.follow(world.up, SCRIPTS["works"])
        calm.play(lambda: calm.has_come_out(world.x))
    calm.follow(world.x, SCRIPTS[script])


class _Calm:
    """The operator looks at an object when something has changed, or when it asked to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._due: dict[Ref, datetime] = {}
        self._seen: dict[Ref, dict[Ref, str]] = {}

    def follow(self, ref: Ref, script: Script) -> None:
        world, before = self.world, self.world.status(ref)
        world.edit(ref, **script.run)
        self.play(lambda: before.finished or script.goal(world.status(ref)), lambda: script.act(world, ref, before))
        after = world.status(ref)
        if before.finished:
            assert seen_status(after, generation=0) == seen_status(before, generation=0)
        else:
            script.judge(before, after)
        if after.finished or after.phase == "Suspended":
            self._nothing_is_left(ref)

    def has_come_out(self, ref: Ref) -> bool:
        """Whether it has ended, or is at work, or waits for what has not ended."""
        status, up = self.world.status(ref), self.world.up
        waits = up in self.world.refs and status.phase == "Waiting" and not self.world.status(up).finished
        return status.finished or status.phase == "Running" or waits

    def play(self, reached: Callable[[], bool], act: Callable[[], bool] = lambda: False) -> None:
        """Turns until nothing moves and the goal is reached; when nothing moves before that, time passes."""
        world, until = self.world, self.world.now + _PATIENCE
        for _ in range(_TURNS):
            before = world.cluster.versions()
            self._operate()
            self._others()
            world.laws.check()
            if world.cluster.versions() != before or act():
                continue
            if reached():
                return
            states = {str(ref): world.said(ref) for ref in world.refs}
            assert self._due, f"nobody will ever look again: {states}"
            world.now = max(world.now, min(self._due.values()))
            assert world.now < until, f"nothing comes of it: {states}"
        raise AssertionError(f"no end: {world.cluster.writes[-6:]}")

    def _operate(self) -> None:
        world = self.world
        for ref in world.refs:
            present = world.concerning(ref)
            if self._seen.get(ref) == present and self._due.get(ref, world.now + _PATIENCE) > world.now:
                continue
            self._seen[ref] = present
            self._due.pop(ref, None)
            outcome = world.look(ref)
            assert outcome is not None
            if outcome.requeue_after is not None:
                self._due[ref] = world.now + outcome.requeue_after

    def _others(self) -> None:
        """Everybody else does what there is to do."""
        world = self.world
        while world.cluster.collect_garbage():
            pass
        world.controllers_act()
        world.queue_admits()
        world.pods_start()
        world.stopped_pods_end(told=False)
        world.controllers_act()
        if world.up in world.refs and world.said(world.x)[1] == "InputFailed":
            world.delete(world.up)
            world.apply(world.up)
            world.edit(world.up, **RUN)

    def _nothing_is_left(self, ref: Ref) -> None:
        world = self.world
        alive = [pod["metadata"]["name"] for pod in world.laws.alive(world.cluster.objects[ref])]
        assert not alive, f"{alive} of {ref}, which is {world.status(ref).phase}"
        uid = world.cluster.objects[ref]["metadata"]["uid"]
        costly = [str(child) for child in world.children_of(uid) if child.kind in ("StatefulSet", "Service")]
        assert not costly, f"{costly} of {ref}, which is {world.status(ref).phase}"


def _finished(status: Status) -> bool:
    return status.finished


def _works(world: World, ref: Ref, _: Status) -> bool:
    return world.work_is_done(ref)


def _fails(code: ExitCode) -> Callable[[World, Ref, Status], bool]:
    def act(world: World, ref: Ref, _: Status) -> bool:
        workers = world.workers(ref)
        for pod in workers[:1]:
            world.end(pod, code, failure(code))
        return bool(workers)

    return act


def _is_preempted_once(world: World, ref: Ref, before: Status) -> bool:
    if world.status(ref).attempts[-1].number > before.attempts[-1].number:
        return world.work_is_done(ref)
    workers = world.workers(ref)
    for pod in workers:
        world.end(pod, ExitCode.PREEMPTED, failure(ExitCode.PREEMPTED))
    return bool(workers)


def _succeeded(before: Status, after: Status) -> None:
    assert after.phase == "Succeeded", after.condition("Ready")
    assert failures(after.attempts) == failures(before.attempts)


def _failed_at_once(before: Status, after: Status) -> None:
    assert (after.phase, after.attempts[-1].exit_code) == ("Failed", ExitCode.DATA), after.condition("Ready")
    assert failures(after.attempts) == failures(before.attempts) + 1


def _failed_after_all_tries(before: Status, after: Status) -> None:
    assert (after.phase, after.attempts[-1].exit_code) == ("Failed", ExitCode.STORAGE), after.condition("Ready")
    assert failures(after.attempts) == max(failures(before.attempts), RETRIES) + 1


def _suspended(before: Status, after: Status) -> None:
    assert after.attempts[-1].outcome == "Suspended"
    assert failures(after.attempts) == failures(before.attempts)


def _too_late(_: Status, after: Status) -> None:
    ready = after.condition("Ready")
    assert ready is not None
    assert (after.phase, ready.reason) == ("Failed", "DeadlineExceeded")


SCRIPTS: Final[Mapping[str, Script]] = {
    "works": Script(_finished, _succeeded, _works),
    "fails for good": Script(_finished, _failed_at_once, _fails(ExitCode.DATA)),
    "fails at every try": Script(_finished, _failed_after_all_tries, _fails(ExitCode.STORAGE)),
    "is preempted once": Script(_finished, _succeeded, _is_preempted_once),
    "is suspended": Script(
        lambda status: status.phase == "Suspended" and status.attempts[-1].end_time is not None,
        _suspended,
        run={"suspend": True},
    ),
    "takes too long": Script(_finished, _too_late, run={"deadline": "1s"}),
}
