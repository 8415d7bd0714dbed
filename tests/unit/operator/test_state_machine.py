"""Whatever happens in whatever order: what must hold holds at every write, and everything comes to its right end."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Ref
from support import calm
from support import memory_controllers as controllers
from support import memory_kubelet as kubelet
from support.memory_cluster import CrashError
from support.memory_world import MOVES, World
from support.scene import SUCCESS, failure

CODES: Final = sorted({1, 127, 128, 255, *map(int, ExitCode)})
RUNS: Final[tuple[dict[str, Any], ...]] = (
    {"suspend": True},
    {"suspend": None},
    {"retries": 0},
    {"retries": 2},
    {"retries": 100},
    {"deadline": "1h"},
    {"deadline": None},
    {"pendingDeadline": "30m"},
    {"pendingDeadline": None},
    {"ttlAfterFinished": "10m"},
    {"ttlAfterFinished": None},
    {"queue": "team-a"},
    {"queue": None},
    {"retries": -1},
    {"image": "other:2"},
)
"""Edits of ``spec.run``, one of them broken; None takes a field away."""
LAGS: Final = (
    ("Pod",),
    ("PyTorchJob", "Job"),
    ("StatefulSet",),
    tuple(KINDS),
    ("ConfigMap", "Service"),
    ("Pod", "PyTorchJob", "Job", "StatefulSet", "Service", "ConfigMap"),
    ("Workload",),
)
"""Kinds that are watched together."""
SKEWS: Final = (0, 0, -262, 262, -86_400, 366 * 86_400)
"""Seconds by which the operator's clock may be wrong."""
PICK: Final = st.integers(min_value=0, max_value=11)
WHO: Final = st.sampled_from(["x", "x", "up"])
AT: Final = st.integers(min_value=0, max_value=5)
TIMES: Final = st.sampled_from([1, 10, 60, 700, 4000])

MEANWHILE: Final[Mapping[str, Callable[[World, Ref], object]]] = {
    "controllers act": lambda world, _: world.controllers_act(),
    "pods start": lambda world, _: world.pods_start(),
    "garbage is collected": lambda world, _: world.cluster.collect_garbage(),
    "the work is done": World.work_is_done,
    "stopped pods end": lambda world, _: world.stopped_pods_end(told=False),
    "the queue preempts": lambda world, _: world.queue_preempts(),
    "a child is deleted": lambda world, _: world.somebody_deletes_the_first_child(),
    "the user suspends": lambda world, ref: world.edit(ref, suspend=True),
    "the user deletes": World.delete,
    "the user makes it anew": World.make_anew,
}
"""What may happen between two writes of one pass."""

with_workloads = precondition(lambda self: bool(controllers.workloads(self.world.cluster)))
with_pods = precondition(lambda self: bool(kubelet.pods(self.world.cluster)))
with_pending_pods = precondition(lambda self: bool(self.world.pending()))
with_running_pods = precondition(lambda self: bool(self.world.running()))
with_stopping_pods = precondition(lambda self: bool(kubelet.stopping(self.world.cluster)))


class Lives(RuleBasedStateMachine):
    """A pipeline of two objects, or one alone; its operator, controllers, nodes, queue, users, and misfortune."""

    @initialize(
        kind=st.sampled_from(sorted(KINDS)),
        pipeline=st.booleans(),
        run=st.sampled_from(({}, {}, {"queue": "team-a"}, {"retries": 0})),
        turns=st.integers(min_value=0, max_value=3),
        idle=st.sets(st.sampled_from(list(MOVES)), max_size=2) | st.just(set(MOVES)),
        script=st.sampled_from(list(calm.SCRIPTS)),
    )
    def begin(self, *, kind: str, pipeline: bool, run: dict[str, Any], turns: int, idle: set[str], script: str) -> None:
        self.world = World(kind, pipeline=pipeline)
        self.world.edit(self.world.x, **run)
        for _ in range(turns):
            self.world.turn()
        self.idle, self.script = idle, script

    # The operator.

    @rule(who=WHO)
    def the_operator_looks(self, who: str) -> None:
        self.world.look(self.ref(who))

    @rule()
    def the_operator_settles(self) -> None:
        self.world.settle()

    @rule(who=WHO, at=AT, after=st.booleans())
    def the_operator_ends_at_a_write(self, *, who: str, at: int, after: bool) -> None:
        def end() -> None:
            raise CrashError

        self.world.look_with(self.ref(who), at, end, after=after)

    @rule(who=WHO, at=AT, after=st.booleans(), event=st.sampled_from(sorted(MEANWHILE)))
    def something_happens_during_a_pass(self, *, who: str, at: int, after: bool, event: str) -> None:
        self.world.look_with(self.ref(who), at, lambda: MEANWHILE[event](self.world, self.ref(who)), after=after)

    @rule(who=WHO, ago=st.integers(min_value=1, max_value=12))
    def an_operator_that_was_stopped_goes_on(self, *, who: str, ago: int) -> None:
        self.world.look_at_the_past(self.ref(who), ago)

    @rule(kinds=st.sampled_from(LAGS))
    def the_view_lags_behind(self, kinds: tuple[str, ...]) -> None:
        self.world.cluster.lag(kinds)

    @precondition(lambda self: self.world.cluster.lags)
    @rule()
    def the_view_catches_up(self) -> None:
        self.world.cluster.catch_up()

    @rule(seconds=st.sampled_from(SKEWS))
    def the_operators_clock_jumps(self, seconds: int) -> None:
        self.world.skewed_by(timedelta(seconds=seconds))

    # Controllers, nodes and the queue.

    @rule(seconds=TIMES)
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def all_goes_well(self) -> None:
        self.world.turn()

    @with_workloads
    @rule(pick=PICK)
    def a_controller_acts(self, pick: int) -> None:
        controllers.act(self.world.cluster, one_of(controllers.workloads(self.world.cluster), pick))

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.cluster.collect_garbage()

    @with_pending_pods
    @rule()
    def pods_start(self) -> None:
        self.world.pods_start()

    @with_pending_pods
    @rule(pick=PICK, why=st.sampled_from(kubelet.TROUBLES))
    def a_pod_cannot_start(self, *, pick: int, why: str) -> None:
        kubelet.trouble(self.world.cluster, one_of(self.world.pending(), pick), why)

    @with_running_pods
    @rule(pick=PICK, code=st.sampled_from(CODES), told=st.sampled_from(["", "result", '{"outcome": 5', "success"]))
    def a_pod_ends(self, *, pick: int, code: int, told: str) -> None:
        known = code != 0 and code in list(ExitCode)
        answers = {"success": SUCCESS, "result": failure(ExitCode(code)) if known else ""}
        self.world.end(one_of(self.world.running(), pick), code, answers.get(told, told))

    @with_running_pods
    @rule(pick=PICK)
    def a_pod_is_killed_at_its_memory_limit(self, pick: int) -> None:
        self.world.end(one_of(self.world.running(), pick), ExitCode.KILLED, reason="OOMKilled")

    @with_running_pods
    @rule(who=WHO)
    def the_work_is_done(self, who: str) -> None:
        self.world.work_is_done(self.ref(who))

    @with_running_pods
    @rule(who=WHO, code=st.sampled_from([64, 143, 145, 147, 147]))
    def all_workers_fail(self, *, who: str, code: int) -> None:
        for pod in self.world.workers(self.ref(who)):
            self.world.end(pod, code, failure(ExitCode(code)))

    @with_running_pods
    @rule(pick=PICK, how=st.sampled_from(["for its node", "for what it used", "with its node"]))
    def a_pod_is_taken_away(self, *, pick: int, how: str) -> None:
        pod = one_of(self.world.running(), pick)
        if how == "with its node":
            kubelet.lose(self.world.cluster, pod)
        else:
            kubelet.evict(self.world.cluster, pod, own_fault=how == "for what it used")

    @with_stopping_pods
    @rule(told=st.booleans())
    def stopped_pods_end(self, *, told: bool) -> None:
        self.world.stopped_pods_end(told=told)

    @with_workloads
    @rule()
    def the_queue_looks(self) -> None:
        controllers.look_at_queues(self.world.cluster)

    @precondition(lambda self: bool(self.world.cluster.of_kind("Workload")))
    @rule(pick=PICK, preempts=st.booleans())
    def the_queue_admits_or_preempts(self, *, pick: int, preempts: bool) -> None:
        workload = one_of(self.world.cluster.of_kind("Workload"), pick)
        (controllers.preempt if preempts else controllers.admit)(self.world.cluster, workload)

    # Users.

    @rule(who=WHO, run=st.sampled_from(RUNS))
    def the_user_edits(self, *, who: str, run: dict[str, Any]) -> None:
        self.world.edit(self.ref(who), **run)

    @rule(who=WHO)
    def the_user_deletes(self, who: str) -> None:
        self.world.delete(self.ref(who))

    @rule(who=WHO, anew=st.booleans())
    def the_user_applies(self, *, who: str, anew: bool) -> None:
        (self.world.make_anew if anew else self.world.apply)(self.ref(who))

    @with_pods
    @rule(pick=PICK)
    def somebody_deletes_a_pod(self, pick: int) -> None:
        self.world.cluster.remove(one_of(kubelet.pods(self.world.cluster), pick))

    @precondition(lambda self: bool(self.world.children()))
    @rule(pick=PICK)
    def somebody_deletes_a_child(self, pick: int) -> None:
        self.world.cluster.remove(one_of(self.world.children(), pick))

    @rule(number=st.integers(min_value=1, max_value=3))
    def somebody_takes_a_name(self, number: int) -> None:
        self.world.somebody_takes_a_name(self.world.name_of_child(number))

    @precondition(lambda self: bool(self.world.laws.foreign))
    @rule()
    def somebody_gives_names_back(self) -> None:
        self.world.somebody_gives_names_back()

    @rule(
        kinds=st.sampled_from([(), ("PyTorchJob", "Job"), ("StatefulSet",), ("ConfigMap",)]),
        how=st.sampled_from(["invalid", "forbidden", "unavailable"]),
    )
    def children_are_refused(self, *, kinds: tuple[str, ...], how: str) -> None:
        self.world.refuse(kinds, how)

    # What must hold.

    @invariant()
    def the_laws_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.laws.check()
            self.world.remember()
            if len(self.idle) < len(MOVES):
                self.world.turn(without=self.idle)
            self.world.laws.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            calm.come(self.world, self.script)

    def ref(self, who: str) -> Ref:
        return self.world.refs[-1] if who == "up" else self.world.x


def one_of(refs: list[Ref], pick: int) -> Ref:
    return refs[pick % len(refs)]


class ManyLives(Lives):
    """The same at length, and different every time."""


Lives.TestCase.settings = settings(
    max_examples=500,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
ManyLives.TestCase.settings = settings(Lives.TestCase.settings, max_examples=20_000, derandomize=False)
TestLives = pytest.mark.timeout(600)(Lives.TestCase)
TestManyLives = pytest.mark.slow(pytest.mark.timeout(7200)(ManyLives.TestCase))
