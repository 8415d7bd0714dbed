"""From what is in the cluster to facts."""

from datetime import UTC, datetime
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator import labels
from posttrain_operator.cluster import Ref
from posttrain_operator.observe import job, pytorchjob, statefulset
from posttrain_operator.observe.facts import observe_attempts, observe_upstream, owned_by
from posttrain_operator.observe.pods import PodFacts, first_failure, observe_pod
from posttrain_operator.observe.workload import WorkloadState

Json = dict[str, Any]
UPSTREAM = Ref(labels.API_VERSION, "RLJob", "team", "grpo")


def condition(kind: str, status: str = "True") -> Json:
    return {"type": kind, "status": status}


@pytest.mark.parametrize(
    ("status", "suspend", "state"),
    [
        ({}, False, WorkloadState.PENDING),
        ({"conditions": None}, False, WorkloadState.PENDING),
        ({}, True, WorkloadState.SUSPENDED),
        ({"ready": 1}, False, WorkloadState.RUNNING),
        ({"active": 1, "ready": 0}, False, WorkloadState.PENDING),
        ({"ready": 1}, True, WorkloadState.SUSPENDED),
        ({"conditions": [condition("Complete")]}, True, WorkloadState.SUCCEEDED),
        ({"conditions": [condition("Complete", "False")], "ready": 1}, False, WorkloadState.RUNNING),
        ({"conditions": [condition("FailureTarget")], "ready": 1}, False, WorkloadState.RUNNING),
        ({"conditions": [condition("FailureTarget"), condition("Failed")]}, False, WorkloadState.FAILED),
    ],
)
def test_the_state_of_a_job(status: Json, *, suspend: bool, state: WorkloadState) -> None:
    assert job.observe({"spec": {"suspend": suspend}, "status": status}) is state


@pytest.mark.parametrize(
    ("kinds", "suspend", "state"),
    [
        ([], False, WorkloadState.PENDING),
        ([], True, WorkloadState.SUSPENDED),
        (["Created"], False, WorkloadState.PENDING),
        (["Created", "Running"], False, WorkloadState.RUNNING),
        (["Created", "Suspended"], False, WorkloadState.SUSPENDED),
        (["Succeeded", "Created", "Running"], False, WorkloadState.SUCCEEDED),
        (["Failed", "Running", "Created"], False, WorkloadState.FAILED),
        (["Restarting", "Running"], False, WorkloadState.RUNNING),
    ],
)
def test_the_state_of_a_pytorchjob_is_no_matter_of_order(
    kinds: list[str], *, suspend: bool, state: WorkloadState
) -> None:
    child = {"spec": {"runPolicy": {"suspend": suspend}}, "status": {"conditions": [condition(kind) for kind in kinds]}}
    assert pytorchjob.observe(child) is state


def test_a_pytorchjob_that_ran_and_failed_has_failed_although_running_comes_last() -> None:
    told = [condition("Failed"), condition("Running", "False")]
    assert pytorchjob.observe({"spec": {"runPolicy": {}}, "status": {"conditions": told}}) is WorkloadState.FAILED


def test_a_pytorchjob_without_a_status_is_pending() -> None:
    assert pytorchjob.observe({"spec": {"runPolicy": {}}}) is WorkloadState.PENDING


@pytest.mark.parametrize(("ready", "answer"), [(None, False), (0, False), (1, False), (2, True)])
def test_servers_are_ready_when_all_of_them_answer(ready: int | None, *, answer: bool) -> None:
    status = {} if ready is None else {"readyReplicas": ready}
    assert statefulset.ready({"spec": {"replicas": 2}, "status": status}) is answer


def pod_object(name: str = "p", *, state: Json | None = None, last: Json | None = None, **status: Any) -> Json:
    container: Json = {"state": state or {}, "lastState": last or {}}
    return {"metadata": {"name": name}, "status": {"phase": "Running", "containerStatuses": [container], **status}}


def test_a_pod_that_was_just_made_has_nothing_to_tell() -> None:
    pod = observe_pod({"metadata": {"name": "p"}})
    assert (pod.phase, pod.exit_code, pod.result, pod.alive, pod.running, pod.failed) == (
        "Pending",
        None,
        None,
        True,
        False,
        False,
    )


def test_a_pod_that_ended_tells_status_reason_time_and_result() -> None:
    message = '{"outcome": "Failed", "exitCode": 64, "reason": "MissingColumn", "message": "no column"}'
    ended = {"exitCode": 64, "reason": "Error", "finishedAt": "2026-01-01T12:00:00Z", "message": message}
    pod = observe_pod(pod_object(state={"terminated": ended}, phase="Failed"))
    assert (pod.exit_code, pod.reason, pod.failed, pod.alive) == (64, "Error", True, False)
    assert pod.finished_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert pod.result is not None
    assert pod.result.exit_code is ExitCode.DATA


def test_a_result_of_a_newer_stage_is_read_as_far_as_it_is_known() -> None:
    message = '{"outcome": "Failed", "exitCode": 64, "reason": "MissingColumn", "mood": "sad"}'
    result = observe_pod(pod_object(state={"terminated": {"exitCode": 64, "message": message}})).result
    assert result is not None
    assert result.reason == "MissingColumn"


def test_a_server_that_is_restarted_tells_how_it_ended_last() -> None:
    pod = observe_pod(pod_object(state={"running": {}}, last={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))
    assert (pod.exit_code, pod.reason, pod.alive, pod.failed) == (137, "OOMKilled", True, True)


@pytest.mark.parametrize("message", [None, "", "Killed", "{", '{"outcome": "Dancing"}', "[]", 7])
def test_a_message_that_is_no_result_is_none(message: Any) -> None:
    assert observe_pod(pod_object(state={"terminated": {"exitCode": 1, "message": message}})).result is None


@pytest.mark.parametrize("when", [None, "", "yesterday", 7])
def test_a_time_that_is_none_is_none(when: Any) -> None:
    assert observe_pod(pod_object(state={"terminated": {"exitCode": 1, "finishedAt": when}})).finished_at is None


def test_an_evicted_pod_failed_although_its_container_never_ended() -> None:
    told: Json = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "the node was low on memory",
        "containerStatuses": None,
    }
    pod = observe_pod(pod_object(**told))
    assert (pod.failed, pod.exit_code, pod.reason, pod.message) == (True, None, "Evicted", "the node was low on memory")


def pod(name: str, code: int | None, second: int | None = 0, *, disrupted: bool = False) -> PodFacts:
    at = None if second is None else datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)
    ended = {} if code is None else {"terminated": {"exitCode": code, "finishedAt": at.isoformat() if at else None}}
    phase = "Running" if code is None else "Failed" if code else "Succeeded"
    told = [condition("DisruptionTarget")] if disrupted else []
    return observe_pod(pod_object(name, state=ended, phase=phase, conditions=told))


def blamed(*pods: PodFacts) -> str | None:
    culprit = first_failure(pods)
    return culprit.name if culprit is not None else None


def test_nobody_is_to_blame_where_nobody_failed() -> None:
    assert blamed() is None
    assert blamed(pod("a", None), pod("b", 0)) is None


def test_the_first_that_failed_is_to_blame() -> None:
    assert blamed(pod("a", 70, 3), pod("b", 64, 1), pod("c", 139, 2)) == "b"


@pytest.mark.parametrize("consequence", [ExitCode.PEER_LOST, ExitCode.PREEMPTED, ExitCode.PREEMPTED_UNSAVED])
def test_pods_that_lost_their_peer_or_were_stopped_are_not_to_blame(consequence: ExitCode) -> None:
    assert blamed(pod("a", consequence, 1), pod("b", 64, 9), pod("c", None)) == "b"


def test_where_all_lost_a_peer_the_first_is_told() -> None:
    assert blamed(pod("a", 145, 2), pod("b", 145, 1)) == "b"


def test_a_pod_that_the_cluster_took_away_explains_why_the_others_lost_a_peer() -> None:
    assert blamed(pod("a", 145, 1), pod("b", 137, 9, disrupted=True)) == "b"
    assert blamed(pod("a", 64, 9), pod("b", 137, 1, disrupted=True)) == "a"


def test_an_end_without_a_time_comes_last() -> None:
    assert blamed(pod("a", 70, None), pod("b", 64, 9)) == "b"


def child(kind: str, name: str, *, owner: str, attempt: str | None = "1") -> Json:
    versions = {"PyTorchJob": "kubeflow.org/v1", "StatefulSet": "apps/v1"}
    metadata: Json = {
        "name": name,
        "namespace": "team",
        "uid": f"uid-of-{name}",
        "labels": {} if attempt is None else {labels.ATTEMPT: attempt},
        "ownerReferences": [{"uid": owner, "controller": True}],
    }
    return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata, "spec": {"runPolicy": {}}}


def test_children_are_found_by_attempt() -> None:
    children = [
        child("ConfigMap", "c1", owner="me"),
        child("PyTorchJob", "t1", owner="me"),
        child("StatefulSet", "s2", owner="me", attempt="2"),
    ]
    facts = observe_attempts("me", children, [])
    assert [(number, one.exists, one.main is not None) for number, one in facts.items()] == [
        (1, True, True),
        (2, True, False),
    ]
    assert facts[2].servers == children[2]


def test_children_of_another_owner_and_without_a_number_are_not_ours() -> None:
    children = [
        child("PyTorchJob", "t1", owner="earlier"),
        child("PyTorchJob", "t2", owner="me", attempt=None),
        child("PyTorchJob", "t3", owner="me", attempt="x"),
    ]
    assert observe_attempts("me", children, []) == {}


def test_an_owner_that_is_not_the_controller_does_not_count() -> None:
    one = child("PyTorchJob", "t1", owner="me")
    one["metadata"]["ownerReferences"][0]["controller"] = False
    assert not owned_by(one, "me")
    del one["metadata"]["ownerReferences"]
    assert not owned_by(one, "me")


def test_a_pod_whose_workload_is_gone_is_awaited_but_tells_nothing_of_this_attempt() -> None:
    own, stray = child("Pod", "p1", owner="uid-of-t1"), child("Pod", "p2", owner="uid-of-an-earlier-t1")
    facts = observe_attempts("me", [child("PyTorchJob", "t1", owner="me")], [own, stray])[1]
    assert [one.name for one in facts.pods] == ["p1"]
    assert [one.name for one in facts.strays] == ["p2"]


def test_the_leader_is_the_first_running_pod_that_is_no_server() -> None:
    pods = [child("Pod", name, owner="uid-of-t1") for name in ("t1-worker-1", "t1-worker-0", "a-server")]
    for one, role in zip(pods, ("trainer", "trainer", "servers"), strict=True):
        one["metadata"]["labels"][labels.ROLE] = role
        one["status"] = {"phase": "Running"}
    facts = observe_attempts("me", [child("PyTorchJob", "t1", owner="me")], pods)[1]
    assert facts.leader is not None
    assert facts.leader.name == "t1-worker-0"


def upstream_object(**status: Any) -> Json:
    told = {"conditions": [], "inputs": {}, "attempts": [], "metrics": {}, **status}
    return {"metadata": {"uid": "u"}, "status": told}


def told_condition(kind: str, message: str = "") -> Json:
    return {
        "type": kind,
        "status": "True",
        "reason": "X",
        "message": message,
        "lastTransitionTime": "2026-01-01T12:00:00Z",
        "observedGeneration": 1,
    }


def test_an_upstream_gives_its_artifact_only_once_it_is_ready() -> None:
    artifact = {"uri": "pvc://posttrain/x", "digest": "0" * 64, "type": "model", "bytes": 1}
    assert observe_upstream(UPSTREAM, upstream_object(artifact=artifact)).artifact is None
    ready = upstream_object(artifact=artifact, conditions=[told_condition("Ready")])
    found = observe_upstream(UPSTREAM, ready)
    assert found.artifact is not None
    assert found.artifact.uri == "pvc://posttrain/x"


def test_an_upstream_that_failed_will_not_come() -> None:
    ready = {**told_condition("Ready", "no data"), "status": "False"}
    failed = upstream_object(phase="Failed", conditions=[ready, told_condition("Failed", "no data")])
    assert observe_upstream(UPSTREAM, failed).failure == "no data"
    invalid = upstream_object(phase="Failed", conditions=[{**ready, "reason": "InvalidSpec"}])
    assert observe_upstream(UPSTREAM, invalid).failure == "no data"
    stuck = upstream_object(
        phase="Queued", conditions=[{**ready, "reason": "NeverFits"}, told_condition("Stalled", "")]
    )
    assert observe_upstream(UPSTREAM, stuck).failure is None, "it goes on when somebody helps"
    assert observe_upstream(UPSTREAM, upstream_object(phase="Running")).failure is None


def test_an_upstream_may_be_missing_or_say_nothing_yet() -> None:
    assert not observe_upstream(UPSTREAM, None).exists
    assert observe_upstream(UPSTREAM, {"metadata": {"uid": "u"}}).phase == "Pending"
