"""The loop over a cluster in memory: what nodes, people and queues do to an attempt, and edits of ``run``."""

from datetime import timedelta
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator import labels
from posttrain_operator.cluster import Json, Ref
from support.memory_cluster import ENDED, conditions, pod_templates
from support.scene import SPECS, SUCCESS, Scene, failure, retried, started

MAIN = Ref("kubeflow.org/v1", "PyTorchJob", "team", "x-finetune-1")


def edit(scene: Scene, **run: Any) -> None:
    scene.cluster.edit(scene.ref, run=run)
    scene.settle()


class TestChildrenThatAreNotThere:
    def test_those_that_never_ran_are_made_again_under_the_same_number(self) -> None:
        scene = Scene(run={"retries": 0})
        scene.settle()
        scene.cluster.remove(MAIN)
        scene.settle()
        assert scene.outcomes == [None]
        assert "PyTorchJob/x-finetune-1" in scene.children
        assert scene.cluster.refreshes == 0

    def test_pods_of_those_are_awaited_first(self) -> None:
        scene = Scene()
        scene.settle()
        scene.start_pods()
        scene.cluster.remove(MAIN)
        scene.settle()
        assert scene.state == ("Pending", "Stopping")
        assert "PyTorchJob/x-finetune-1" not in scene.children
        scene.end_stopped_pods()
        scene.settle()
        assert scene.outcomes == [None]
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_those_that_ran_are_lost_once_the_cluster_was_asked_again(self) -> None:
        scene = started(run={"retries": 0})
        scene.cluster.remove(MAIN)
        scene.reconcile()
        assert scene.outcomes == ["Lost"]
        assert scene.cluster.refreshes == 1

    def test_a_trainer_that_is_gone_is_lost_although_its_servers_are_there(self) -> None:
        scene = started("RLJob")
        scene.cluster.remove(Ref("kubeflow.org/v1", "PyTorchJob", "team", "x-rl-1"))
        scene.settle()
        assert scene.outcomes == ["Lost"]
        scene.end_stopped_pods()
        scene.wait()
        scene.settle()
        assert scene.outcomes == ["Lost", None]
        assert "StatefulSet/x-serve-2" in scene.children

    def test_a_later_attempt_is_opened_once_the_cluster_was_asked_again(self) -> None:
        scene = started()
        assert scene.cluster.refreshes == 0
        scene.end_workers(147, failure(ExitCode.STORAGE))
        retried(scene)
        assert scene.outcomes == ["Failed", None]
        assert scene.cluster.refreshes == 1

    def test_a_preemption_goes_on_although_the_retries_were_lowered_below_what_was_used(self) -> None:
        scene = started()
        for code in (ExitCode.STORAGE, ExitCode.STORAGE):
            scene.end_workers(code, failure(code))
            retried(scene)
            scene.start_pods()
            scene.settle()
        edit(scene, retries=1)
        scene.end_workers(ExitCode.PREEMPTED, failure(ExitCode.PREEMPTED))
        retried(scene)
        assert scene.outcomes == ["Failed", "Failed", "Preempted", None]

    def test_an_attempt_is_closed_as_suspended_once_the_cluster_was_asked_again(self) -> None:
        scene = started()
        edit(scene, suspend=True)
        assert scene.cluster.refreshes == 0
        scene.end_stopped_pods()
        scene.settle()
        assert scene.outcomes == ["Suspended"]
        assert scene.cluster.refreshes == 1


class TestGangs:
    def test_a_gang_that_lost_a_member_starts_again_whole_and_at_no_cost(self) -> None:
        scene = started(run={"retries": 0})
        ran = scene.status.attempts[0].running_time
        assert ran is not None
        first, second = scene.pods()
        scene.cluster.objects.pop(second)
        scene.wait(timedelta(minutes=1))
        scene.start_pods()
        scene.cluster.objects[first]["metadata"]["creationTimestamp"] = "2026-01-01T11:59:00Z"
        scene.cluster.objects[second]["metadata"]["creationTimestamp"] = "2026-01-01T12:01:00Z"
        scene.settle()
        assert scene.outcomes == ["Preempted"]
        assert scene.status.attempts[0].reason == "PodReplaced"
        assert "PyTorchJob/x-finetune-1" not in scene.children
        assert scene.state == ("Pending", "Stopping")
        scene.end_stopped_pods()
        scene.settle()
        assert scene.outcomes == ["Preempted", None]

    def test_a_member_that_is_being_deleted_ends_the_gang_while_it_can_save(self) -> None:
        scene = started(run={"retries": 0})
        scene.cluster.objects[scene.pods()[1]]["metadata"]["deletionTimestamp"] = "2026-01-01T12:05:00Z"
        scene.settle()
        assert scene.outcomes == ["Preempted"]
        assert all("deletionTimestamp" in scene.cluster.objects[pod]["metadata"] for pod in scene.pods())


class TestSuspension:
    def test_a_failure_of_before_is_on_record_first_and_counts(self) -> None:
        scene = started(run={"retries": 1})
        scene.end_workers(147, failure(ExitCode.STORAGE, "DiskFull", "full"))
        edit(scene, retries=1, suspend=True)
        assert scene.state == ("Suspended", "Suspended")
        assert scene.outcomes == ["Failed"]
        assert scene.status.attempts[0].reason == "DiskFull"
        edit(scene, retries=1)
        scene.wait()
        scene.settle()
        assert scene.outcomes == ["Failed", None]

    def test_a_failure_of_before_that_is_final_ends_the_job(self) -> None:
        scene = started()
        scene.end_workers(64, failure(ExitCode.DATA, "MissingColumn"))
        edit(scene, suspend=True)
        assert scene.state == ("Failed", "MissingColumn")

    def test_a_child_that_dies_of_the_suspension_is_no_failure(self) -> None:
        scene = started(run={"retries": 0})
        edit(scene, retries=0, suspend=True)
        dying = {**self.child(scene), "status": {"conditions": conditions("Failed")}}
        scene.cluster.apply(dying)
        for pod in scene.pods():
            scene.cluster.objects[pod]["metadata"]["ownerReferences"][0]["uid"] = dying["metadata"]["uid"]
            status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137}}}]}
            scene.cluster.set_status(pod, **status)
        scene.settle()
        assert scene.state[0] == "Suspended"
        assert scene.outcomes == ["Suspended"]

    def child(self, scene: Scene) -> Json:
        """The child as it is while it is deleted in the foreground."""
        owner = scene.cluster.objects[scene.ref]["metadata"]["uid"]
        own = {labels.KIND: "FineTuneJob", labels.NAME: "x", labels.ATTEMPT: "1", labels.ROLE: "trainer"}
        return {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {
                "name": "x-finetune-1",
                "namespace": "team",
                "uid": "dying",
                "labels": own,
                "deletionTimestamp": "2026-01-01T12:00:00Z",
                "ownerReferences": [{"uid": owner, "controller": True}],
            },
            "spec": {"runPolicy": {}},
        }


class TestEditsOfRun:
    def test_retries_can_be_given_before_they_are_used_up(self) -> None:
        scene = started(run={"retries": 0})
        edit(scene, retries=1)
        scene.end_workers(147, failure(ExitCode.STORAGE))
        scene.settle()
        assert scene.state == ("Pending", "Retrying")

    def test_retries_can_be_taken_back(self) -> None:
        scene = started(run={"retries": 9})
        edit(scene, retries=0)
        scene.end_workers(147, failure(ExitCode.STORAGE))
        scene.settle()
        assert scene.state == ("Failed", "Broken")

    def test_a_deadline_can_be_set_moved_and_taken_away(self) -> None:
        scene = started()
        scene.wait()
        edit(scene, deadline="2h")
        assert scene.state == ("Running", "Running")
        edit(scene)
        scene.wait(timedelta(days=9))
        scene.settle()
        assert scene.state == ("Running", "Running")
        edit(scene, deadline="1m")
        assert scene.state == ("Failed", "DeadlineExceeded")

    def test_resources_labels_and_image_are_those_of_the_next_attempt(self) -> None:
        scene = started()
        edit(scene, image="acme/new:2", podLabels={"team": "a"})
        assert scene.outcomes == [None]
        scene.end_workers(143, failure(ExitCode.PREEMPTED))
        scene.settle()
        (ref,) = [ref for ref in scene.cluster.of_kind("PyTorchJob") if ref.name.endswith("-2")]
        for template in pod_templates(scene.cluster.objects[ref]):
            assert template["metadata"]["labels"]["team"] == "a"
            assert template["spec"]["containers"][0]["image"] == "acme/new:2"


class TestPodMetadata:
    @pytest.mark.parametrize("kind", SPECS)
    def test_every_pod_carries_what_was_asked_for_and_what_the_operator_needs(self, kind: str) -> None:
        run = {"podLabels": {"team": "a"}, "podAnnotations": {"acme.dev/x": "y"}}
        scene = started(kind, run=run)
        templates = [template for obj in scene.cluster.objects.values() for template in pod_templates(obj)]
        assert templates
        for template in templates:
            metadata = template["metadata"]
            assert metadata["labels"]["team"] == "a"
            assert metadata["labels"][labels.ATTEMPT] == "1"
            assert metadata["annotations"] == {"acme.dev/x": "y"}

    @pytest.mark.parametrize(
        "run",
        [
            {"podLabels": {labels.ATTEMPT: "7"}},
            {"podLabels": {labels.ROLE: "servers"}},
            {"podLabels": {labels.QUEUE: "other"}},
            {"podAnnotations": {"posttrain.dev/x": "y"}},
        ],
    )
    def test_keys_of_the_operator_are_refused(self, run: Json) -> None:
        scene = Scene(run=run)
        scene.settle()
        assert scene.state == ("Failed", "InvalidSpec")
        assert next(iter(run)) in scene.message


class TestCosts:
    def test_gpu_seconds_are_those_of_all_attempts_while_they_ran(self) -> None:
        scene = started("RLJob", run={"resources": {"gpus": 2}, "retries": 3})
        assert scene.status.attempts[0].gpus == 6  # a trainer and two servers
        writes = len(scene.cluster.writes)
        scene.wait(timedelta(minutes=10))
        scene.settle()
        assert len(scene.cluster.writes) == writes
        assert scene.status.gpu_seconds is None
        scene.end_workers(147, failure(ExitCode.STORAGE))
        retried(scene)
        assert scene.status.gpu_seconds == 6 * 600
        for _ in range(2):
            scene.start_pods()
            scene.settle()
        scene.wait(timedelta(minutes=1))
        scene.end_workers(0, SUCCESS)
        scene.settle()
        assert scene.status.gpu_seconds == 6 * 660

    def test_running_takes_no_write_of_its_own(self) -> None:
        scene = Scene()
        scene.settle()
        scene.start_pods()
        writes = len(scene.cluster.writes)
        scene.reconcile()
        assert scene.state == ("Running", "Running")
        assert scene.status.attempts[0].running_time == scene.now
        assert len(scene.cluster.writes) == writes + 1


class TestInputs:
    @pytest.mark.parametrize(
        ("kind", "spec", "field", "needed", "given"),
        [
            ("FineTuneJob", {"model": {"from": "FilterJob/y"}}, "model", "model", "dataset"),
            ("FineTuneJob", {"dataset": {"from": "RLJob/y"}}, "dataset", "dataset", "model"),
            ("FilterJob", {"source": {"from": "FineTuneJob/y"}}, "source", "dataset", "model"),
            (
                "RLJob",
                {"evaluation": {"generate": {"dataset": {"from": "FineTuneJob/y"}}}},
                "evaluation.generate.dataset",
                "dataset",
                "model",
            ),
        ],
    )
    def test_an_artifact_of_the_wrong_type_is_refused_before_it_exists(
        self, kind: str, spec: Json, field: str, needed: str, given: str
    ) -> None:
        scene = Scene(kind, **spec)
        scene.settle()
        assert scene.state == ("Failed", "InvalidSpec")
        assert f"spec.{field}.from: must be a {needed}, but " in scene.message
        assert f"publishes a {given}" in scene.message

    @pytest.mark.parametrize("kind", ["FilterJob", "FineTuneJob", "RLJob"])
    def test_an_upload_takes_either(self, kind: str) -> None:
        scene = Scene("UploadJob", source={"from": f"{kind}/y"})
        scene.settle()
        assert scene.state == ("Waiting", "WaitingForArtifact")


def test_pods_that_still_run_when_a_failure_is_told_are_awaited_before_anybody_is_blamed() -> None:
    scene = started()
    first, second = scene.pods()
    scene.end(second, 145, failure(ExitCode.PEER_LOST, "PeerLost"))
    scene.settle()
    assert scene.state == ("Pending", "Stopping")
    assert scene.outcomes == [None]
    assert scene.cluster.objects[first]["status"]["phase"] not in ENDED
    state = {"terminated": {"exitCode": 64, "message": failure(ExitCode.DATA, "NoColumn").message_bytes().decode()}}
    scene.cluster.set_status(first, phase="Failed", containerStatuses=[{"state": state}])
    scene.settle()
    assert scene.state == ("Failed", "NoColumn")
