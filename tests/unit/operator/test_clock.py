"""Deadlines, pauses and lifetimes by a clock that jumps: never early once it is right again, and never much late."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.run import RunSpec
from posttrain_operator.api.status import Attempt, Status
from posttrain_operator.cluster import Json
from posttrain_operator.plan.clock import first_of, last_end, pause_left, since
from posttrain_operator.plan.finished import after_finish
from posttrain_operator.settings import Settings
from support.kstatus import StatusFollower
from support.memory_cluster import MemoryCluster
from support.scene import SUCCESS, Scene, failure, started

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
JUMPS = st.one_of(
    st.integers(-262, 262).map(lambda seconds: timedelta(seconds=seconds)),
    st.sampled_from([timedelta(), timedelta(days=365), timedelta(days=-1)]),
)


class TimedCluster(MemoryCluster):
    """Puts its own time on what is created, as an API server does; the operator's clock is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.time = NOON

    def _store(self, obj: Json) -> None:
        obj["metadata"].setdefault("creationTimestamp", self.time.strftime("%Y-%m-%dT%H:%M:%SZ"))
        super()._store(obj)


class SkewedScene(Scene):
    """A scene whose operator has a clock that is wrong by ``skew``."""

    def __init__(self, *, run: Json | None = None) -> None:
        super().__init__(run=run)
        timed = TimedCluster()
        timed.apply(self.cluster.objects[self.ref])
        self.cluster: TimedCluster = timed
        self.skew = timedelta()

    def look(self) -> None:
        self.now = self.cluster.time + self.skew
        self.settle()

    def pass_time(self, span: timedelta) -> None:
        self.cluster.time += span
        self.look()


def spans(*, minutes: int) -> st.SearchStrategy[timedelta]:
    return st.integers(0, minutes * 60).map(lambda seconds: timedelta(seconds=seconds))


def ahead(skew: timedelta) -> timedelta:
    """How late something may be because a clock was ahead, but not so far that it is known to have been wrong."""
    return min(max(skew, timedelta()), timedelta(seconds=262))


class TestDeadlines:
    @settings(deadline=None, max_examples=60)
    @given(
        skew=JUMPS,
        before=spans(minutes=30),
        at_work=spans(minutes=50),
        kind=st.sampled_from(["deadline", "pendingDeadline"]),
    )
    def test_a_clock_that_was_wrong_when_the_job_began_changes_nothing(
        self, skew: timedelta, before: timedelta, at_work: timedelta, kind: str
    ) -> None:
        scene = SkewedScene(run={kind: "1h"})
        scene.cluster.time += before
        scene.skew = skew
        scene.look()
        began = scene.cluster.time
        scene.skew = timedelta()
        scene.pass_time(at_work)
        assert scene.state[0] == "Starting"
        scene.cluster.time = began + HOUR - SECOND
        scene.look()
        assert scene.state[0] == "Starting"
        scene.pass_time(2 * SECOND + ahead(skew))
        assert scene.state[0] == "Failed"

    @settings(deadline=None, max_examples=25)
    @given(skew=JUMPS)
    def test_a_clock_that_stays_wrong_kills_nothing_early(self, skew: timedelta) -> None:
        scene = SkewedScene(run={"deadline": "1h", "pendingDeadline": "1h"})
        scene.skew = skew
        scene.look()
        scene.pass_time(HOUR - SECOND)
        assert scene.state[0] == "Starting"

    @settings(deadline=None, max_examples=40)
    @given(skews=st.lists(st.sampled_from([-86_400, -262, -1, 0, 1, 262]), min_size=1, max_size=5))
    def test_a_clock_that_is_behind_or_a_little_ahead_kills_nothing_early(self, skews: list[int]) -> None:
        scene = SkewedScene(run={"deadline": "1h", "pendingDeadline": "1h"})
        scene.look()
        for skew in skews:
            scene.skew = timedelta(seconds=skew)
            scene.pass_time(timedelta(minutes=10))
            assert scene.state[0] == "Starting"

    def test_the_operator_looks_when_a_deadline_passes(self) -> None:
        scene = started(run={"deadline": "1h", "pendingDeadline": "5s"})
        scene.wait(timedelta(minutes=59, seconds=57))
        assert scene.reconcile().requeue_after == 3 * SECOND
        scene.wait(3 * SECOND)
        scene.settle()
        assert scene.state == ("Failed", "DeadlineExceeded")

    def test_time_suspended_does_not_count(self) -> None:
        scene = Scene(run={"deadline": "1h", "pendingDeadline": "1h"})
        scene.settle()
        for _ in range(3):
            scene.wait(timedelta(minutes=15))
            scene.cluster.edit(scene.ref, run={"deadline": "1h", "pendingDeadline": "1h", "suspend": True})
            scene.settle()
            scene.wait(timedelta(days=2))
            scene.settle()
            scene.cluster.edit(scene.ref, run={"deadline": "1h", "pendingDeadline": "1h"})
            scene.settle()
            assert scene.state == ("Starting", "Starting")
        scene.wait(timedelta(minutes=16))
        scene.settle()
        assert scene.state[0] == "Failed"


class TestPendingDeadline:
    def test_it_names_what_kept_the_pods_from_starting(self) -> None:
        scene = Scene(run={"pendingDeadline": "2h", "retries": 9})
        scene.settle()
        scene.start_pods()
        told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes have room"}
        for pod in scene.pods():
            scene.cluster.set_status(pod, phase="Pending", conditions=[told], containerStatuses=[])
        scene.settle()
        assert scene.state == ("Starting", "Unschedulable")
        scene.wait(2 * HOUR)
        scene.settle()
        assert scene.state == ("Failed", "PendingDeadlineExceeded")
        assert "run.pendingDeadline (2h)" in scene.message
        assert "Unschedulable: x-finetune-1-worker-0 cannot be scheduled: 0/3 nodes have room" in scene.message
        assert scene.outcomes == ["Failed"]
        scene.end_stopped_pods()
        assert scene.live_attempts() == set()

    def test_it_is_over_once_an_attempt_ran(self) -> None:
        scene = started(run={"pendingDeadline": "10m"})
        scene.wait()
        scene.settle()
        assert scene.state == ("Running", "Running")
        scene.end_workers(143, failure(ExitCode.PREEMPTED))
        scene.settle()
        scene.wait()
        scene.settle()
        assert scene.state == ("Starting", "Starting")

    def test_attempts_that_ended_without_running_count(self) -> None:
        scene = Scene(run={"pendingDeadline": "1h", "retries": 9})
        scene.settle()
        for _ in range(3):
            scene.wait(timedelta(minutes=20))
            for ref in scene.cluster.of_kind("PyTorchJob"):
                scene.cluster.set_status(ref, conditions=[{"type": "Failed", "status": "True"}])
            scene.settle()
        assert scene.state == ("Failed", "PendingDeadlineExceeded")

    def test_a_job_that_runs_at_the_very_moment_goes_on(self) -> None:
        scene = Scene(run={"pendingDeadline": "1h"})
        scene.settle()
        scene.start_pods()
        scene.wait(2 * HOUR)
        scene.settle()
        assert scene.state == ("Running", "Running")

    def test_it_can_be_edited_while_it_waits(self) -> None:
        scene = Scene(run={"pendingDeadline": "1h"})
        scene.settle()
        scene.cluster.edit(scene.ref, run={"pendingDeadline": "3h"})
        scene.wait(2 * HOUR)
        scene.settle()
        assert scene.state == ("Starting", "Starting")
        scene.cluster.edit(scene.ref, run={"pendingDeadline": "1s"})
        scene.settle()
        assert scene.state == ("Failed", "PendingDeadlineExceeded")


class TestPauses:
    @given(jump=JUMPS, pause=st.integers(0, 600), longest=st.integers(1, 600))
    def test_an_end_that_seems_to_come_never_blocks_longer_than_the_longest_pause(
        self, jump: timedelta, pause: int, longest: int
    ) -> None:
        ended = (Attempt(number=1, start_time=NOON, end_time=NOON + jump, outcome="Failed"),)
        left = pause_left(ended, min(pause, longest) * SECOND, longest * SECOND, NOON)
        assert timedelta() <= left <= longest * SECOND
        assert not left or pause_left(ended, min(pause, longest) * SECOND, longest * SECOND, NOON + left) == timedelta()

    def test_a_pause_is_as_long_as_it_should_be_by_a_right_clock(self) -> None:
        ended = (Attempt(number=1, start_time=NOON, end_time=NOON, outcome="Failed"),)
        assert pause_left(ended, 40 * SECOND, 600 * SECOND, NOON + 10 * SECOND) == 30 * SECOND
        assert pause_left((), 40 * SECOND, 600 * SECOND, NOON) == timedelta()
        assert pause_left((Attempt(number=1, start_time=NOON),), SECOND, HOUR, NOON) == timedelta()

    @settings(deadline=None, max_examples=30)
    @given(skew=JUMPS)
    def test_the_next_attempt_comes_whatever_the_clock_said_at_the_end_of_the_last(self, skew: timedelta) -> None:
        scene = SkewedScene()
        scene.look()
        scene.start_pods()
        scene.look()
        scene.skew = skew
        scene.end_workers(147, failure(ExitCode.STORAGE))
        scene.look()
        scene.end_stopped_pods()
        scene.skew = timedelta()
        scene.look()
        scene.pass_time(Settings().longest_backoff)
        assert [attempt.number for attempt in scene.status.attempts] == [1, 2]


class TestLifetimes:
    @settings(deadline=None, max_examples=25)
    @given(skew=JUMPS, early=spans(minutes=55))
    def test_children_stay_as_long_as_they_should(self, skew: timedelta, early: timedelta) -> None:
        scene = self.finished(skew)
        run = RunSpec(ttl_after_finished="1h")
        kept, again = after_finish(scene.status, run, scene.attempts, now=NOON + early)
        assert kept == ()
        assert again is not None
        assert timedelta() < again <= HOUR
        a_second = SECOND  # the second pod ended so much later
        late = NOON + early + again + a_second + ahead(skew)
        gone, never = after_finish(scene.status, run, scene.attempts, now=late)
        names = {f"{child['kind']}/{child['metadata']['name']}" for child in gone}
        assert names == {str(ref) for ref in scene.cluster.objects if ref != scene.ref and ref.kind != "Pod"}
        assert never is None

    def finished(self, skew: timedelta) -> SkewedScene:
        scene = SkewedScene()
        scene.look()
        scene.start_pods()
        scene.look()
        scene.skew = skew
        scene.now = NOON  # the nodes' clock
        scene.end_workers(0, SUCCESS)
        scene.look()
        assert scene.state[0] == "Succeeded"
        return scene

    def test_without_a_lifetime_only_what_costs_something_goes(self) -> None:
        scene = self.finished(timedelta())
        for run in (RunSpec(), None):
            assert after_finish(scene.status, run, scene.attempts, now=NOON + 9 * HOUR) == ((), None)

    def test_where_nothing_is_left_nobody_looks_again(self) -> None:
        status = Status(completion_time=NOON)
        assert after_finish(status, RunSpec(ttl_after_finished="1h"), {}, now=NOON) == ((), None)

    def test_a_lifetime_that_is_set_later_counts_from_the_end(self) -> None:
        scene = self.finished(timedelta())
        gone, again = after_finish(scene.status, RunSpec(ttl_after_finished="1h"), scene.attempts, now=NOON + 2 * HOUR)
        assert gone
        assert again is None

    def test_what_costs_something_goes_at_once(self) -> None:
        scene = started("RLJob")
        scene.end_workers(0, SUCCESS)
        status = Status(completion_time=scene.now)
        kept, again = after_finish(status, RunSpec(ttl_after_finished="1h"), scene.attempts, now=scene.now)
        assert {child["kind"] for child in kept} == {"StatefulSet", "Service"}
        assert again == HOUR


class TestTimesOnRecord:
    @settings(deadline=None, max_examples=40)
    @given(skews=st.lists(JUMPS, min_size=6, max_size=6))
    def test_nothing_ends_before_it_begins_and_nothing_costs_less_than_nothing(self, skews: list[timedelta]) -> None:
        scene, follower = SkewedScene(), StatusFollower()
        scene.cluster.after_write = lambda _: follower.see(scene.cluster.objects[scene.ref])
        for skew, step in zip(skews, self.life(scene), strict=True):
            step()
            scene.skew = skew
            scene.look()
        assert scene.outcomes == ["Preempted", "Failed"]
        assert scene.status.completion_time is not None

    def life(self, scene: SkewedScene) -> Iterator[Callable[[], None]]:
        yield lambda: None
        yield scene.start_pods
        yield lambda: scene.end_workers(143, failure(ExitCode.PREEMPTED))
        yield scene.end_stopped_pods
        yield scene.start_pods
        yield lambda: scene.end_workers(64, failure(ExitCode.DATA))

    def test_a_span_is_never_negative(self) -> None:
        assert since(NOON + HOUR, NOON) == timedelta()
        assert since(NOON - HOUR, NOON) == HOUR
        assert first_of(None, HOUR, SECOND) == SECOND
        assert first_of(None) is None

    @pytest.mark.parametrize("told", [None, NOON + 9 * HOUR])
    def test_an_end_that_nobody_knows_is_now(self, told: Any) -> None:
        assert last_end(Status(completion_time=told), {}, NOON) == NOON
