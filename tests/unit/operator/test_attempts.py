"""The life of attempts: how one ended, what it costs, and when the next one begins."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator import labels
from posttrain_operator.api.status import Attempt, Outcome
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.pods import observe_pod
from posttrain_operator.plan.attempts import FREE_OUTCOMES, backoff, closed, failures, observed, opened
from posttrain_operator.plan.ending import End, ended, lost
from posttrain_operator.settings import Settings
from support.memory_cluster import conditions
from support.scene import SUCCESS, failure

Json = dict[str, Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def worker(code: int | None, message: str | None = None, *, reason: str | None = None, role: str = "trainer") -> Json:
    terminated = {"exitCode": code, "message": message, "reason": reason, "finishedAt": NOON.isoformat()}
    return {
        "metadata": {"name": f"x-{role}-0", "labels": {labels.ROLE: role}},
        "status": {
            "phase": "Running" if code is None else "Failed" if code else "Succeeded",
            "containerStatuses": [{"state": {} if code is None else {"terminated": terminated}}],
        },
    }


def facts(condition: str | None, *pods: Json) -> AttemptFacts:
    main = {
        "kind": "PyTorchJob",
        "metadata": {"name": "x-finetune-1"},
        "spec": {"runPolicy": {}},
        "status": {"conditions": conditions(condition) if condition else []},
    }
    return AttemptFacts(1, main, None, (main,), tuple(observe_pod(pod) for pod in pods))


def end_of(condition: str | None, *pods: Json) -> End:
    end = ended(facts(condition, *pods))
    assert end is not None
    return end


def told(code: ExitCode) -> str:
    return failure(code, "Word", "why").message_bytes().decode()


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (ExitCode.DONE, ExitCode.KILLED)])
def test_a_result_decides_what_its_status_is_worth(code: ExitCode) -> None:
    end = end_of("Failed", worker(int(code), told(code)))
    assert end.outcome == ("Preempted" if code in (143, 144) else "Failed")
    assert end.retriable == (code >= 128)
    assert (end.reason, end.message, end.exit_code) == ("Word", "why", code)


@pytest.mark.parametrize(
    ("code", "outcome", "retriable"),
    [
        (1, "Failed", False),
        (2, "Failed", False),
        (70, "Failed", False),
        (127, "Failed", False),
        (128, "Failed", True),
        (134, "Failed", True),
        (137, "Failed", True),
        (139, "Failed", True),
        (143, "Preempted", True),
        (144, "Preempted", True),
        (145, "Failed", True),
        (255, "Failed", True),
    ],
)
def test_without_a_result_the_exit_status_decides(code: int, outcome: str, *, retriable: bool) -> None:
    end = end_of("Failed", worker(code))
    assert (end.outcome, end.retriable, end.exit_code) == (outcome, retriable, code)
    assert end.reason == ("Preempted" if outcome == "Preempted" else "NoResult")
    assert "x-trainer-0" in end.message


def test_the_memory_limit_is_met_again_with_the_same_input() -> None:
    end = end_of("Failed", worker(137, reason="OOMKilled"))
    assert (end.outcome, end.retriable, end.reason) == ("Failed", False, "OutOfMemory")
    assert "run.resources.memory" in end.message


def test_a_result_without_a_word_still_has_a_reason() -> None:
    assert end_of("Failed", worker(64, '{"outcome": "Failed", "exitCode": 64}')).reason == "Failed"


def test_a_pod_that_told_success_and_died_afterwards_failed_by_its_status() -> None:
    end = end_of("Failed", worker(139, SUCCESS.message_bytes().decode()))
    assert (end.outcome, end.retriable, end.reason) == ("Failed", True, "NoResult")


def test_an_eviction_is_a_failure_that_may_pass_and_says_why() -> None:
    pod = worker(None)
    pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": 'usage of EmptyDir volume "tmp" exceeds 8Gi'}
    end = end_of("Failed", pod)
    assert (end.outcome, end.retriable, end.exit_code) == ("Failed", True, None)
    assert "exceeds 8Gi" in end.message


@pytest.mark.parametrize("code", [None, 137, 143])
def test_a_pod_that_the_cluster_took_away_costs_no_retry(code: int | None) -> None:
    pod = worker(code)
    pod["status"] |= {"phase": "Failed", "conditions": conditions("DisruptionTarget")}
    end = end_of("Failed", pod)
    assert (end.outcome, end.retriable, end.reason) == ("Preempted", True, "Preempted")


def test_a_workload_that_failed_without_a_pod_costs_a_retry() -> None:
    end = end_of("Failed")
    assert (end.outcome, end.retriable, end.reason) == ("Failed", True, "NoResult")


def test_success_needs_an_artifact() -> None:
    done = end_of("Succeeded", worker(0), worker(0, SUCCESS.message_bytes().decode()))
    assert (done.outcome, done.result) == ("Succeeded", SUCCESS)
    untold = end_of("Succeeded", worker(0))
    assert (untold.outcome, untold.retriable, untold.reason) == ("Failed", True, "NoResult")


def test_an_attempt_goes_on_while_its_workload_does() -> None:
    assert ended(facts(None)) is None
    assert ended(facts("Running", worker(None))) is None
    assert ended(facts("Running", worker(64, told(ExitCode.DATA)), worker(None))) is None
    assert ended(AttemptFacts(1, None, None, (), ())) is None


def test_a_server_that_failed_ends_the_attempt_with_its_own_cause() -> None:
    server = worker(65, told(ExitCode.MODEL), role="servers")
    end = end_of("Failed", worker(146, told(ExitCode.SERVER_LOST)), server)
    assert (end.exit_code, end.reason) == (65, "Word")
    assert end_of("Running", worker(None), server).exit_code == 65


def test_a_server_that_was_preempted_does_not_end_the_attempt() -> None:
    assert ended(facts("Running", worker(None), worker(143, told(ExitCode.PREEMPTED), role="servers"))) is None


def test_a_server_that_ended_after_the_trainer_succeeded_changes_nothing() -> None:
    done = SUCCESS.message_bytes().decode()
    assert end_of("Succeeded", worker(0, done), worker(65, role="servers")).outcome == "Succeeded"


def test_the_end_is_written_into_the_attempt() -> None:
    result = failure(ExitCode.STORAGE).model_copy(update={"resumed_from": "checkpoint-4"})
    end = End("Failed", retriable=True, reason="DiskFull", message="full", exit_code=147, result=result)
    (attempt,) = closed((Attempt(number=3, start_time=NOON),), end, NOON + timedelta(hours=1))
    assert attempt == Attempt(
        number=3,
        start_time=NOON,
        end_time=NOON + timedelta(hours=1),
        outcome="Failed",
        exit_code=147,
        reason="DiskFull",
        message="full",
        resumed_from="checkpoint-4",
    )


def history(*outcomes: Outcome) -> list[Attempt]:
    return [Attempt(number=n, start_time=NOON, end_time=NOON, outcome=o) for n, o in enumerate(outcomes, 1)]


def test_only_failures_count() -> None:
    assert failures(history("Failed", "Preempted", "Suspended", "Lost", "Failed")) == 2
    assert set(FREE_OUTCOMES) == {"Preempted", "Suspended", "Lost", "Released"}
    assert lost().outcome in FREE_OUTCOMES


@pytest.mark.parametrize(
    ("outcomes", "seconds"),
    [
        ([], 0),
        (["Failed"], 10),
        (["Failed", "Failed"], 20),
        (["Failed", "Preempted", "Failed"], 20),
        (["Failed"] * 4, 80),
        (["Failed"] * 7, 600),
        (["Failed"] * 100, 600),
        (["Failed", "Preempted"], 0),
        (["Suspended"], 0),
        (["Lost"], 10),
        (["Lost"] * 9, 10),
        (["Failed", "Failed", "Lost"], 20),
    ],
)
def test_the_pause_doubles_with_failures_up_to_a_bound(outcomes: list[Outcome], seconds: int) -> None:
    assert backoff(history(*outcomes), Settings()) == timedelta(seconds=seconds)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Failed", "Preempted", "Suspended", "Lost"]), max_size=300))
def test_the_pause_is_never_longer_than_its_bound(outcomes: list[Outcome]) -> None:
    assert timedelta() <= backoff(history(*outcomes), Settings()) <= Settings().longest_backoff


POD = {
    "metadata": {"name": "x-worker-0", "labels": {labels.ROLE: "trainer"}, "creationTimestamp": "2026-01-01T11:59:00Z"},
    "spec": {"containers": [{"name": "pytorch", "resources": {"limits": {"cpu": "8", "nvidia.com/gpu": "4"}}}]},
    "status": {
        "phase": "Running",
        "containerStatuses": [{"name": "pytorch", "state": {"running": {"startedAt": "2026-01-01T12:00:30Z"}}}],
    },
}
SERVER = {**POD, "metadata": {"name": "x-servers-0", "labels": {labels.ROLE: "servers"}}}
OPEN = Attempt(number=1, start_time=NOON - timedelta(minutes=5))


def gang_of(size: int, condition: str | None, *pods: Json) -> AttemptFacts:
    main = {
        "kind": "PyTorchJob",
        "metadata": {"name": "x"},
        "spec": {"runPolicy": {}, "pytorchReplicaSpecs": {"Worker": {"replicas": size}}},
        "status": {"conditions": conditions(condition) if condition else []},
    }
    return AttemptFacts(1, main, None, (main,), tuple(observe_pod(pod) for pod in pods))


class TestRunning:
    def test_it_is_on_record_with_the_clocks_of_the_cluster_and_the_gpus_of_all_pods(self) -> None:
        (attempt,) = observed((OPEN,), gang_of(1, "Running", POD, SERVER), NOON)
        assert attempt.running_time == datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
        assert attempt.gpus == 8
        assert attempt.ran

    def test_a_gang_runs_when_all_of_it_does_although_its_controller_speaks_of_the_master_alone(self) -> None:
        pending = {**POD, "metadata": {"name": "x-worker-1"}, "status": {"phase": "Pending"}}
        assert observed((OPEN,), gang_of(2, "Running", POD), NOON) == (OPEN,)
        assert observed((OPEN,), gang_of(2, "Running", POD, pending), NOON) == (OPEN,)
        (attempt,) = observed((OPEN,), gang_of(2, "Running", POD, {**POD, "metadata": {"name": "y"}}), NOON)
        assert attempt.ran

    def test_a_controller_whose_pods_are_not_seen_yet_is_believed(self) -> None:
        (attempt,) = observed((OPEN,), gang_of(2, "Running"), NOON)
        assert attempt.running_time == NOON

    def test_where_pods_do_not_tell_when_they_started_nobody_is_younger_than_the_record(self) -> None:
        born_later = {
            **POD,
            "metadata": {"name": "x", "creationTimestamp": "2026-01-01T13:00:00Z"},
            "status": {"phase": "Running"},
        }
        (attempt,) = observed((OPEN,), gang_of(1, "Running", born_later), NOON)
        assert attempt.running_time == NOON + timedelta(hours=1)

    def test_it_is_told_once(self) -> None:
        history = observed((OPEN,), gang_of(1, "Running", POD), NOON)
        assert observed(history, gang_of(1, "Running", POD), NOON + timedelta(hours=1)) == history
        assert observed((OPEN,), gang_of(1, None, POD), NOON) == (OPEN,)
        assert observed((OPEN,), None, NOON) == (OPEN,)

    def test_a_queue_that_suspends_it_ends_that_time_but_not_that_it_ran(self) -> None:
        (attempt,) = observed(observed((OPEN,), gang_of(1, "Running", POD), NOON), gang_of(1, "Suspended"), NOON)
        assert attempt.running_time is None
        assert attempt.ran

    def test_one_that_nobody_saw_running_may_have_run(self) -> None:
        end = End("Failed", retriable=True, reason="Broken", message="")
        ended_pod = {
            **POD,
            "status": {
                "phase": "Failed",
                "containerStatuses": [
                    {"name": "pytorch", "state": {"terminated": {"exitCode": 1, "startedAt": "2026-01-01T12:00:30Z"}}}
                ],
            },
        }
        (attempt,) = closed((OPEN,), end, NOON + timedelta(minutes=1), gang_of(1, "Failed", ended_pod))
        assert (attempt.running_time, attempt.gpus) == (datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC), 4)
        (never,) = closed((OPEN,), end, NOON, gang_of(2, "Failed", ended_pod))
        assert not never.ran

    def test_a_new_attempt_is_added_once(self) -> None:
        first = opened((), 1, NOON)
        assert [attempt.number for attempt in first] == [1]
        assert opened(first, 1, NOON + timedelta(hours=1)) == first
        assert [attempt.number for attempt in opened(first, 2, NOON)] == [1, 2]

    def test_an_end_is_never_before_the_start(self) -> None:
        (attempt,) = closed((OPEN,), lost(), NOON - timedelta(days=1))
        assert attempt.end_time == OPEN.start_time

    @pytest.mark.parametrize(("minutes", "spent"), [(10, 4 * 600), (0, 0), (-10, 0)])
    def test_what_it_cost(self, minutes: int, spent: int) -> None:
        ran = OPEN.model_copy(update={"running_time": NOON, "gpus": 4})
        assert ran.gpu_seconds(NOON + timedelta(minutes=minutes)) == spent
        assert OPEN.gpu_seconds(NOON) == 0
