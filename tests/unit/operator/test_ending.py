"""How an attempt ended when the cluster, the node or a person had a hand in it."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator import labels
from posttrain_operator.api.status import Attempt
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.pods import observe_pod
from posttrain_operator.plan.ending import End, ended
from support.memory_cluster import conditions
from support.scene import SUCCESS, failure

Json = dict[str, Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RAN = Attempt(number=1, start_time=NOON - timedelta(minutes=5), running_time=NOON, gpus=0)
NEVER_RAN = Attempt(number=1, start_time=NOON)


def seconds(number: float) -> str:
    return (NOON + timedelta(seconds=number)).isoformat()


def pod(name: str, *, role: str = "trainer", created: float = -60, deleted: bool = False, **status: Any) -> Json:
    """A running pod of the gang, unless its status says otherwise."""
    metadata = {"name": name, "labels": {labels.ROLE: role}, "creationTimestamp": seconds(created)}
    if deleted:
        metadata["deletionTimestamp"] = seconds(100)
    running = [{"name": "pytorch", "state": {"running": {"startedAt": seconds(created + 5)}}}]
    return {"metadata": metadata, "status": {"phase": "Running", "containerStatuses": running, **status}}


def gone(name: str, code: ExitCode | int, *, at: float = 50, deleted: bool = False, told: bool = False) -> Json:
    """A pod that ended with a status, and perhaps with a result."""
    message = failure(ExitCode(code), "Word", "why").message_bytes().decode() if told else None
    state = {"terminated": {"exitCode": int(code), "finishedAt": seconds(at), "message": message}}
    phase = "Failed" if code else "Succeeded"
    return pod(name, deleted=deleted, phase=phase, containerStatuses=[{"name": "pytorch", "state": state}])


def disruption(reason: str, message: str = "") -> Json:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


def facts(condition: str | None, *pods: Json, kind: str = "PyTorchJob", **metadata: Any) -> AttemptFacts:
    spec: Json = {"runPolicy": {"suspend": condition == "Suspended"}} if kind == "PyTorchJob" else {}
    main = {
        "kind": kind,
        "metadata": {"name": "x-finetune-1", **metadata},
        "spec": spec,
        "status": {"conditions": conditions(condition) if condition else [], "ready": 1},
    }
    return AttemptFacts(1, main, None, (main,), tuple(observe_pod(one) for one in pods))


def end_of(condition: str | None, *pods: Json, attempt: Attempt = RAN) -> End:
    end = ended(facts(condition, *pods), attempt)
    assert end is not None
    return end


def goes_on(condition: str | None, *pods: Json, attempt: Attempt = RAN, **more: Any) -> bool:
    return ended(facts(condition, *pods, **more), attempt) is None


class TestWhatTheClusterTook:
    @pytest.mark.parametrize(
        ("reason", "condition"),
        [
            ("Evicted", "TerminationByKubelet"),
            ("NodeLost", "DeletionByPodGC"),
            (None, "PreemptionByScheduler"),
            (None, "DeletionByTaintManager"),
            (None, "EvictionByEvictionAPI"),
        ],
    )
    def test_it_costs_no_retry_and_says_why(self, reason: str | None, condition: str) -> None:
        told = pod("a", phase="Failed", reason=reason, conditions=[disruption(condition, "somebody needs the room")])
        end = end_of("Failed", told)
        assert (end.outcome, end.retriable, end.reason) == ("Preempted", True, "Preempted")
        assert "somebody needs the room" in end.message

    @pytest.mark.parametrize(
        ("reason", "message"), [("NodeLost", ""), ("Evicted", "The node was low on resource: ephemeral-storage. ")]
    )
    def test_an_older_kubelet_tells_it_in_the_reason_alone(self, reason: str, message: str) -> None:
        end = end_of("Failed", pod("a", phase="Failed", reason=reason, message=message))
        assert (end.outcome, end.reason) == ("Preempted", "Preempted")

    def test_an_eviction_for_memory_names_what_to_raise(self) -> None:
        message = "The node was low on resource: memory. Container pytorch was using 5Gi, request is 4Gi."
        taken = pod("a", phase="Failed", reason="Evicted", message=message, conditions=[disruption("x")])
        assert "run.resources.memory" in end_of("Failed", taken).message

    def test_a_pod_that_is_being_taken_ends_its_gang_at_once_so_that_all_save_together(self) -> None:
        leaving = pod("b", conditions=[disruption("PreemptionByScheduler", "for a job of higher priority")])
        end = end_of("Running", pod("a"), leaving)
        assert (end.outcome, end.reason) == ("Preempted", "Preempted")
        assert end.message == "b was taken away by the cluster: for a job of higher priority"

    def test_a_lost_node_explains_the_peers_that_were_lost(self) -> None:
        lost = pod("a", deleted=True, conditions=[disruption("DeletionByTaintManager")])
        end = end_of("Failed", lost, gone("b", ExitCode.PEER_LOST, told=True))
        assert (end.outcome, end.reason) == ("Preempted", "Preempted")

    def test_a_cause_of_its_own_comes_before_it(self) -> None:
        lost = pod("a", deleted=True, conditions=[disruption("DeletionByTaintManager")])
        assert end_of("Failed", lost, gone("b", ExitCode.DATA, told=True)).exit_code == ExitCode.DATA

    def test_of_a_job_one_pod_that_is_taken_ends_nothing_before_the_job_does(self) -> None:
        leaving = pod("a", role="worker", conditions=[disruption("EvictionByEvictionAPI")])
        assert goes_on(None, leaving, pod("b", role="worker"), kind="Job")

    def test_an_attempt_that_never_ran_waits_for_its_pods(self) -> None:
        leaving = pod("b", deleted=True, conditions=[disruption("PreemptionByScheduler")])
        assert goes_on("Running", pod("a"), leaving, attempt=NEVER_RAN)

    def test_a_server_that_was_taken_explains_that_the_trainer_lost_it(self) -> None:
        trainer = gone("a", ExitCode.SERVER_LOST, told=True)
        assert end_of("Failed", trainer, pod("s", role="servers")).outcome == "Failed"
        for server in (
            pod("s", role="servers", deleted=True),
            pod("s", role="servers", conditions=[disruption("EvictionByEvictionAPI")]),
            pod("s", role="servers", created=30, phase="Pending", containerStatuses=[]),
        ):
            end = end_of("Failed", trainer, server)
            assert (end.outcome, end.reason) == ("Preempted", "Preempted")


class TestGangs:
    def test_a_pod_that_was_made_after_the_gang_ran_has_replaced_one(self) -> None:
        end = end_of("Running", pod("a"), pod("b", created=1))
        assert (end.outcome, end.retriable, end.reason) == ("Preempted", True, "PodReplaced")
        assert end.message == "b was made anew alone; the gang starts again whole"

    @pytest.mark.parametrize(("created", "phase"), [(-1, "Pending"), (0, "Running")])
    def test_a_pod_of_before_or_of_the_same_second_is_one_of_the_gang(self, created: float, phase: str) -> None:
        assert goes_on("Running", pod("a"), pod("b", created=created, phase=phase))

    def test_a_pod_of_the_same_second_that_has_not_started_is_new(self) -> None:
        assert end_of("Running", pod("a"), pod("b", created=0, phase="Pending")).reason == "PodReplaced"

    def test_replacement_explains_peers_that_were_lost(self) -> None:
        end = end_of("Failed", gone("a", ExitCode.PEER_LOST, told=True), pod("b", created=30))
        assert (end.outcome, end.reason) == ("Preempted", "PodReplaced")

    def test_a_gang_that_never_ran_is_still_being_made(self) -> None:
        assert goes_on("Running", pod("a"), pod("b", created=600), attempt=NEVER_RAN)

    def test_a_pod_that_somebody_deletes_breaks_the_gang_while_all_live(self) -> None:
        for condition in ("Running", "Failed"):  # the training operator counts a pod that is being deleted as failed
            end = end_of(condition, pod("a"), pod("b", deleted=True))
            assert (end.outcome, end.reason) == ("Preempted", "PodReplaced")

    def test_siblings_of_a_pod_that_ended_are_deleted_as_a_matter_of_course(self) -> None:
        assert goes_on("Running", gone("a", ExitCode.DATA), pod("b", deleted=True))
        assert goes_on("Running", gone("a", ExitCode.DONE), pod("b", deleted=True))

    def test_a_child_that_is_suspended_or_deleted_has_not_lost_a_member(self) -> None:
        leaving = pod("a", deleted=True)
        assert goes_on("Suspended", leaving, pod("b", deleted=True))
        assert goes_on("Running", leaving, pod("b"), deletionTimestamp=seconds(1))

    def test_pods_of_a_job_come_and_go_by_themselves(self) -> None:
        assert goes_on(None, pod("a", role="worker"), pod("b", role="worker", created=600), kind="Job")

    def test_a_pod_without_a_time_of_birth_is_believed(self) -> None:
        ageless = pod("b")
        del ageless["metadata"]["creationTimestamp"]
        assert goes_on("Running", pod("a"), ageless)

    def test_who_gave_up_because_peers_never_came_costs_no_retry(self) -> None:
        init = [{"name": "init-pytorch", "state": {"terminated": {"exitCode": 1}}}]
        waited = pod("b", phase="Failed", containerStatuses=[], initContainerStatuses=init)
        end = end_of("Failed", pod("a", phase="Pending", containerStatuses=[]), waited, attempt=NEVER_RAN)
        assert (end.outcome, end.retriable, end.reason) == ("Lost", True, "GangIncomplete")
        assert "init-pytorch" in end.message

    def test_the_failed_pod_that_is_gone_was_taken_away(self) -> None:
        end = end_of("Failed")
        assert (end.outcome, end.retriable, end.reason) == ("Lost", True, "ChildLost")
        assert end_of("Failed", attempt=NEVER_RAN).outcome == "Failed"


class TestBlame:
    """Of the pods of a failed gang one is to blame, whoever is listed or reports first."""

    def test_a_cause_of_its_own_decides_at_once(self) -> None:
        end = end_of("Failed", pod("a", deleted=True), gone("b", ExitCode.DATA, told=True))
        assert (end.outcome, end.exit_code) == ("Failed", ExitCode.DATA)

    @pytest.mark.parametrize("code", [ExitCode.PEER_LOST, ExitCode.PREEMPTED])
    def test_consequences_wait_until_nobody_is_left_who_could_tell_more(self, code: ExitCode) -> None:
        told = gone("b", code, at=50, told=True)
        assert goes_on("Failed", pod("a"), told)
        assert end_of("Failed", gone("a", ExitCode.DATA, at=40, told=True), told).exit_code == ExitCode.DATA

    @pytest.mark.parametrize(
        ("stopped_at", "lost_at", "blamed"),
        [(40, 41, ExitCode.PREEMPTED), (41, 40, ExitCode.PEER_LOST), (40, 40, ExitCode.PREEMPTED)],
    )
    def test_of_a_stop_and_a_lost_peer_the_first_is_the_cause(
        self, stopped_at: float, lost_at: float, blamed: ExitCode
    ) -> None:
        pods = [
            gone("z", ExitCode.PREEMPTED, at=stopped_at, told=True),
            gone("a", ExitCode.PEER_LOST, at=lost_at, told=True),
        ]
        for order in itertools.permutations(pods):
            assert end_of("Failed", *order).exit_code == blamed

    def test_a_sibling_that_was_deleted_after_the_failure_is_no_cause_whatever_its_clock_says(self) -> None:
        lost = gone("b", ExitCode.PEER_LOST, at=50, told=True)
        for code in (ExitCode.PREEMPTED, ExitCode.PREEMPTED_UNSAVED, ExitCode.KILLED):
            stopped = gone("a", code, at=10, deleted=True, told=code is not ExitCode.KILLED)
            assert end_of("Failed", stopped, lost).exit_code == ExitCode.PEER_LOST

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from([0, 64, 70, 137, 143, 144, 145, 147]), st.integers(0, 3), st.booleans()),
            min_size=1,
            max_size=5,
        ),
        st.randoms(use_true_random=False),
    )
    def test_the_order_of_a_list_does_not_matter(self, told: list[tuple[int, int, bool]], chance: Any) -> None:
        pods = [gone(f"p{n}", code, at=at, deleted=deleted) for n, (code, at, deleted) in enumerate(told)]
        expected = ended(facts("Failed", *pods), RAN)
        chance.shuffle(pods)
        assert ended(facts("Failed", *pods), RAN) == expected


class TestTheNode:
    @pytest.mark.parametrize(("role", "remedy"), [("trainer", "the batch size"), ("servers", "rollout.cacheMemoryMi")])
    def test_memory_is_permanent_and_names_what_to_raise(self, role: str, remedy: str) -> None:
        state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        last = {"lastState": state} if role == "servers" else {"state": state}
        phase = "Running" if role == "servers" else "Failed"
        killed = pod("a", role=role, phase=phase, containerStatuses=[{"name": "pytorch", **last}])
        end = end_of("Running" if role == "servers" else "Failed", killed)
        assert (end.outcome, end.retriable, end.reason) == ("Failed", False, "OutOfMemory")
        assert "run.resources.memory" in end.message
        assert remedy in end.message

    def test_too_much_shared_memory_is_permanent(self) -> None:
        message = 'Usage of EmptyDir volume "shm" exceeds the limit "1Gi". '
        end = end_of("Failed", pod("a", phase="Failed", reason="Evicted", message=message, containerStatuses=None))
        assert (end.outcome, end.retriable, end.reason) == ("Failed", False, "OutOfMemory")
        assert "run.resources.shm" in end.message

    @pytest.mark.parametrize(
        "message",
        [
            'Usage of EmptyDir volume "tmp" exceeds the limit "8Gi". ',
            'Container stage exceeded its local ephemeral storage limit "10Gi". ',
            "Pod ephemeral local storage usage exceeds the total limit of containers 10Gi. ",
        ],
    )
    def test_too_much_scratch_costs_a_retry(self, message: str) -> None:
        end = end_of("Failed", pod("a", phase="Failed", reason="Evicted", message=message, containerStatuses=None))
        assert (end.outcome, end.retriable, end.reason) == ("Failed", True, "ScratchExceeded")

    @pytest.mark.parametrize(
        ("code", "reason", "retriable"), [(128, "StartError", True), (127, "ContainerCannotRun", False)]
    )
    def test_a_container_that_cannot_run_says_why(self, code: int, reason: str, *, retriable: bool) -> None:
        why = 'exec: "python": executable file not found in $PATH'
        state = {"terminated": {"exitCode": code, "reason": reason, "message": why}}
        end = end_of("Failed", pod("a", phase="Failed", containerStatuses=[{"name": "pytorch", "state": state}]))
        assert (end.outcome, end.retriable, end.reason) == ("Failed", retriable, "ContainerCannotRun")
        assert why in end.message
        assert "run.image" in end.message


class TestResults:
    def test_success_waits_for_the_pod_that_tells_of_the_artifact(self) -> None:
        done = gone("a", 0)
        done["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = SUCCESS.message_bytes().decode()
        assert goes_on("Succeeded", pod("a"), pod("b"))
        assert end_of("Succeeded", done, pod("b")).outcome == "Succeeded"
        assert end_of("Succeeded", gone("a", 0), gone("b", 0)).reason == "NoResult"

    @pytest.mark.parametrize("word", ["", "no column", "missingColumn", "Missing-Column", "Missing\n", "Größe", "7Up"])
    def test_a_reason_that_is_no_word_is_not_told(self, word: str) -> None:
        told = gone("a", ExitCode.DATA)
        message = failure(ExitCode.DATA, word, "why").message_bytes().decode()
        told["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = message
        end = end_of("Failed", told)
        assert (end.reason, end.message) == ("Failed", "why")

    @pytest.mark.parametrize(
        ("condition", "pods", "absent"),
        [
            ("Failed", [], True),
            ("Failed", [gone("a", 139)], True),
            ("Running", [pod("a"), pod("b", created=9)], True),
            ("Succeeded", [gone("a", 0)], True),
            ("Failed", [gone("a", 147, told=True)], False),
            ("Failed", [pod("a", phase="Failed", conditions=[disruption("x")])], False),
        ],
    )
    def test_an_end_that_rests_on_what_was_not_seen_says_so(
        self, condition: str, pods: list[Json], *, absent: bool
    ) -> None:
        assert end_of(condition, *pods).from_absence is absent
