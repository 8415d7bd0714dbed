"""Whatever happens in whatever order: one attempt at a time, an end that stays, and no more failures than allowed."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.status import Status
from posttrain_operator.status import seen_status
from support.kstatus import StatusFollower
from support.memory_cluster import ENDED, CrashError
from support.scene import SPECS, SUCCESS, WORKLOADS, Scene, failure

RETRIES = 2
JUMPS = [timedelta(seconds=262), timedelta(seconds=-262), timedelta(days=365), timedelta(days=-365), timedelta(days=-1)]
RUNS: list[dict[str, Any]] = [
    {},
    {"retries": 0},
    {"retries": -1},
    {"deadline": "1h"},
    {"pendingDeadline": "10m"},
    {"ttlAfterFinished": "1s", "podLabels": {"team": "a"}},
]
DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
NEWS: list[dict[str, Any]] = [
    {"phase": "Failed", "reason": "Evicted", "conditions": DISRUPTED},
    {"conditions": DISRUPTED},
    {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
    {"phase": "Unknown", "reason": "NodeLost"},
    {"containerStatuses": "garbled", "conditions": 7},
    {"phase": "Running", "conditions": [], "containerStatuses": [{"state": {"running": {}}}]},
]
CODES = [code for code in ExitCode if code is not ExitCode.DONE]


class Life(RuleBasedStateMachine):
    """One object, its operator, its controllers, its kubelet, its user, and misfortune."""

    @initialize(kind=st.sampled_from(sorted(SPECS)))
    def begin(self, kind: str) -> None:
        self.scene = Scene(kind, run={"retries": RETRIES})
        self.finished: Status | None = None
        self.numbers: list[int] = []
        self.counted = 0
        self.follower = StatusFollower()
        self.scene.cluster.before_write = self.look_at_a_write
        self.scene.cluster.after_write = self.look_at_a_status

    def look_at_a_write(self, _: int) -> None:
        """Before the operator writes: what it must never do."""
        self.live_before = self.scene.live_attempts()

    def look_at_a_status(self, _: int) -> None:
        """After the operator wrote, though it may not know: what nobody must ever see."""
        self.follower.see(self.scene.cluster.objects[self.scene.ref])

    @rule()
    def the_operator_looks(self) -> None:
        """One pass, or as many as there is something to write."""
        children = set(self.scene.children)
        self.scene.reconcile()
        created = {child for child in set(self.scene.children) - children if not child.startswith("ConfigMap")}
        for child in created:
            number = child.rpartition("-")[2]
            assert self.live_before <= {number}, f"{child} while attempt {self.live_before} lives"
        assert not (created and self.finished), "a finished object creates nothing"

    @rule(crash=st.integers(min_value=0, max_value=4), known=st.booleans())
    def the_operator_looks_and_its_process_ends(self, *, crash: int, known: bool) -> None:
        first = self.scene.cluster.tries

        hook = "after_write" if known else "before_write"
        kept = getattr(self.scene.cluster, hook)

        def end(number: int) -> None:
            kept(number)
            if number == first + crash:
                raise CrashError

        setattr(self.scene.cluster, hook, end)
        try:
            self.scene.reconcile()
        except CrashError:
            pass
        finally:
            setattr(self.scene.cluster, hook, kept)

    @rule()
    def controllers_make_pods(self) -> None:
        self.scene.start_pods()

    @rule()
    def stopped_pods_end(self) -> None:
        self.scene.end_stopped_pods()

    @rule(seconds=st.sampled_from([1, 10, 600]))
    def time_passes(self, seconds: int) -> None:
        self.scene.now += seconds * (self.scene.settings.first_backoff / 10)

    @precondition(lambda self: self.scene.live_attempts())
    @rule(code=st.sampled_from(CODES), told=st.booleans(), pick=st.integers(min_value=0))
    def a_pod_fails(self, *, code: ExitCode, told: bool, pick: int) -> None:
        result = failure(code) if told and code is not ExitCode.KILLED else None
        self.scene.end(self.alive(pick), int(code), result)

    @precondition(lambda self: self.scene.live_attempts())
    @rule()
    def the_work_is_done(self) -> None:
        self.scene.end_workers(0, SUCCESS)

    @rule(pick=st.integers(min_value=0))
    def somebody_deletes_a_child(self, pick: int) -> None:
        workloads = [ref for ref in self.scene.cluster.objects if ref.kind in WORKLOADS]
        if workloads:
            self.scene.cluster.remove(workloads[pick % len(workloads)])

    @rule(jump=st.sampled_from(JUMPS))
    def the_clock_jumps(self, jump: timedelta) -> None:
        self.scene.now += jump

    @precondition(lambda self: self.scene.live_attempts())
    @rule(pick=st.integers(min_value=0), status=st.sampled_from(NEWS))
    def a_pod_has_news(self, pick: int, status: dict[str, Any]) -> None:
        self.scene.cluster.set_status(self.alive(pick), **status)
        self.scene.control()

    @precondition(lambda self: self.scene.live_attempts())
    @rule(pick=st.integers(min_value=0))
    def somebody_deletes_a_pod(self, pick: int) -> None:
        self.scene.cluster.objects[self.alive(pick)]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    @precondition(lambda self: self.scene.live_attempts())
    @rule(pick=st.integers(min_value=0))
    def a_pod_vanishes_with_its_node(self, pick: int) -> None:
        self.scene.cluster.objects.pop(self.alive(pick))

    @rule(suspend=st.booleans(), run=st.sampled_from(RUNS))
    def the_user_suspends_or_goes_on_or_wants_something_else(self, *, suspend: bool, run: dict[str, Any]) -> None:
        self.scene.cluster.edit(self.scene.ref, run={"retries": RETRIES, "suspend": suspend, **run})

    def alive(self, pick: int) -> Any:
        pods = [pod for pod in self.scene.pods() if self.phase(pod) not in ENDED]
        return pods[pick % len(pods)]

    def phase(self, pod: Any) -> str:
        return str(self.scene.cluster.objects[pod]["status"]["phase"])

    @invariant()
    def one_attempt_lives(self) -> None:
        assert len(self.scene.live_attempts()) <= 1

    @invariant()
    def the_end_stays(self) -> None:
        status = self.scene.status
        if self.finished is not None:
            assert seen_status(status, generation=1) == self.finished
        elif status.finished:
            self.finished = seen_status(status, generation=1)

    @invariant()
    def failures_are_bounded_and_never_forgotten(self) -> None:
        failed = self.scene.outcomes.count("Failed")
        assert self.counted <= failed <= RETRIES + 1
        self.counted = failed

    @invariant()
    def attempts_are_numbered_in_order_and_only_the_last_is_open(self) -> None:
        attempts = self.scene.status.attempts
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert all(attempt.end_time is not None for attempt in attempts[:-1])

    @invariant()
    def the_status_is_one_that_can_be_read(self) -> None:
        raw = self.scene.cluster.objects[self.scene.ref].get("status")
        assert raw is None or self.scene.status != Status()


Life.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = pytest.mark.timeout(300)(Life.TestCase)
