"""The quickstart on real nodes: images, the real training operator and kubelet, a real claim, the cluster's own DNS."""

import json
from typing import Any

import pytest
from support.on_cluster import KINDS, OnCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(5400)]

SECONDS = 1800.0

KILL_THE_RANK = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"posttrain_finetune.rank" in (process / "cmdline").read_bytes().split(b"\\0")[2:4]:
        os.kill(int(process.name), signal.SIGKILL)
"""


def test_the_quickstart_succeeds_on_a_cluster(quickstart: OnCluster) -> None:
    quickstart.apply()
    quickstart.wait_until_all_succeeded(seconds=SECONDS)
    assert quickstart.status("FilterJob")["metrics"]["rowsKept"] == 4000
    assert [len(quickstart.status(kind)["attempts"]) for kind in KINDS] == [1, 1, 1, 1]
    assert_the_gang_was_two_pods_of_the_training_operator(quickstart)
    assert_rollouts_came_from_a_server_that_dns_names(quickstart)
    assert_artifacts_are_whole(quickstart)
    assert_nothing_went_wrong_inside(quickstart)


def test_the_trainer_goes_on_after_its_process_was_killed_and_after_its_pod_was_deleted(quickstart: OnCluster) -> None:
    quickstart.apply()
    wait_until_past_a_checkpoint(quickstart, attempt=1)
    leader = min(quickstart.pods_of("FineTuneJob", attempt=1))
    quickstart.kubectl.run("exec", leader, "--", "python", "-c", KILL_THE_RANK)
    wait_until_past_a_checkpoint(quickstart, attempt=2)
    quickstart.kubectl.run("delete", "pod", min(quickstart.pods_of("FineTuneJob", attempt=2)), "--wait=false")
    quickstart.wait_until_all_succeeded(seconds=SECONDS)
    killed, deleted, last = quickstart.status("FineTuneJob")["attempts"]
    assert (killed["outcome"], killed["exitCode"], killed["reason"]) == ("Failed", 137, "ProcessDied")
    assert deleted["outcome"] == "Preempted", "a pod that somebody deletes costs no retry"
    assert last["outcome"] == "Succeeded"
    assert step_of(last["resumedFrom"]) > 210, "the deleted pod saved before it went"
    assert_artifacts_are_whole(quickstart)
    assert_nothing_went_wrong_inside(quickstart)


def wait_until_past_a_checkpoint(quickstart: OnCluster, *, attempt: int) -> None:
    """Checkpoints are made every 100 steps."""
    step = 100 * attempt + 10
    quickstart.wait_for(
        lambda: (
            len(quickstart.status("FineTuneJob").get("attempts", [])) == attempt
            and quickstart.step("FineTuneJob") > step
        ),
        f"step {step} in attempt {attempt}",
        seconds=SECONDS,
    )


def step_of(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


def assert_the_gang_was_two_pods_of_the_training_operator(quickstart: OnCluster) -> None:
    pods = quickstart.pods_of("FineTuneJob").values()
    assert len(pods) == 2
    (job,) = {owner["name"] for pod in pods for owner in pod["metadata"]["ownerReferences"]}
    assert quickstart.children[job]["kind"] == "PyTorchJob"
    for pod in pods:
        assert pod["metadata"]["labels"]["training.kubeflow.org/job-name"] == job
        assert environment(pod)["PET_NNODES"] == "2"
    assert len({pod["status"]["podIP"] for pod in pods}) == 2


def assert_rollouts_came_from_a_server_that_dns_names(quickstart: OnCluster) -> None:
    configurations = [json.loads(c["data"]["stage.json"]) for c in stage_configurations(quickstart)]
    (server,) = next(c["servers"] for c in configurations if c["stage"] == "rl")
    pod, service, namespace, _ = server.split(".")
    assert namespace == quickstart.kubectl.namespace
    owner = quickstart.pods[pod]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("StatefulSet", service)
    figures = quickstart.status("RLJob")["metrics"]
    assert figures["weightVersion"] == 59, "weights go to the server before each of the 60 steps"
    assert figures["samplingLogpDifference"] < 1e-5, "the server sampled with other weights than were trained"
    assert figures["exactMatch"] >= figures["exactMatchBefore"] + 0.25


def assert_artifacts_are_whole(quickstart: OnCluster) -> None:
    found = quickstart.artifacts()
    told = {status["artifact"]["digest"] for status in map(quickstart.status, KINDS)}
    assert {state for state, _ in found.values()} == {"whole"}
    assert {digest for _, digest in found.values()} == told
    assert len(found) == len(KINDS)


def assert_nothing_went_wrong_inside(quickstart: OnCluster) -> None:
    """No pod was refused by the namespace, which its would-be maker tells, and no pass of the operator failed."""
    events = quickstart.events()
    assert not [event["message"] for event in events if "violates PodSecurity" in event["message"]]
    assert not [event["message"] for event in events if event["reason"] == "InternalError"]


def stage_configurations(quickstart: OnCluster) -> list[dict[str, Any]]:
    return [found for found in quickstart.kubectl.objects("ConfigMap") if "stage.json" in found["data"]]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    (container,) = pod["spec"]["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}
