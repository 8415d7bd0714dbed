"""The loop over a cluster in memory: finished objects, and what other objects, owners and writers do to one."""

from datetime import timedelta
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import Progress
from posttrain_contract.result import StageResult
from posttrain_operator.cluster import Ref
from posttrain_operator.errors import ApiUnavailable, Conflict
from posttrain_operator.status import seen_status
from support.memory_cluster import CrashError, owner_reference
from support.scene import SUCCESS, Scene, crash_at, failure, retried, started

Json = dict[str, Any]


class TestTheEnd:
    @pytest.fixture(params=["Succeeded", "Failed"])
    def ended(self, request: pytest.FixtureRequest) -> Scene:
        scene = started("RLJob")
        if request.param == "Succeeded":
            scene.end_workers(0, SUCCESS)
        else:
            scene.end_workers(64, failure(ExitCode.DATA))
        scene.settle()
        scene.end_stopped_pods()
        assert scene.state[0] == request.param
        return scene

    @pytest.mark.parametrize("run", [{}, {"suspend": True}, {"retries": 100}, {"deadline": "1s"}, {"retries": "many"}])
    def test_whatever_run_says_later_it_stays(self, ended: Scene, run: Json) -> None:
        before, children = ended.status, ended.children
        ended.cluster.edit(ended.ref, run=run)
        ended.wait()
        ended.settle()
        assert (ended.status, ended.children) == (seen_status(before, generation=2), children)

    def test_a_later_generation_is_seen_lest_tools_wait_for_it(self, ended: Scene) -> None:
        ended.cluster.edit(ended.ref, run={"retries": 7})
        ended.settle()
        assert ended.status.observed_generation == 2
        assert {condition.observed_generation for condition in ended.status.conditions} == {2}

    def test_it_creates_nothing_ever_again(self, ended: Scene) -> None:
        before = ended.status
        for ref in [ref for ref in ended.cluster.objects if ref != ended.ref]:
            ended.cluster.objects.pop(ref)
        ended.wait()
        ended.settle()
        assert (ended.status, ended.children) == (before, [])

    def test_what_still_runs_is_deleted_even_if_it_comes_back(self, ended: Scene) -> None:
        owner = ended.cluster.objects[ended.ref]
        workload = ended.cluster.objects[Ref("kubeflow.org/v1", "PyTorchJob", "team", "x-rl-1")]
        servers = {
            **workload,
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "spec": {"replicas": 1},
            "metadata": {**workload["metadata"], "uid": "new", "ownerReferences": [owner_reference(owner)]},
        }
        ended.cluster.apply(servers)
        ended.settle()
        assert not any(child.startswith("StatefulSet") for child in ended.children)

    @pytest.mark.parametrize("then", [SUCCESS, failure(ExitCode.DATA)], ids=["Succeeded", "Failed"])
    def test_the_pass_that_ends_it_asks_for_the_one_that_tidies_up(self, then: StageResult) -> None:
        scene = started("RLJob", run={"ttlAfterFinished": "10m"})
        scene.end_workers(int(then.exit_code), then)
        assert scene.reconcile().requeue_after == timedelta(minutes=10)
        assert scene.status.finished
        assert scene.children != []
        scene.end_stopped_pods()
        scene.wait(timedelta(minutes=10))
        assert scene.reconcile().requeue_after is None
        assert scene.children == []

    def test_it_may_be_tidied_up_at_once(self) -> None:
        scene = started("UploadJob", run={"ttlAfterFinished": "0s"})
        scene.end_workers(0, SUCCESS)
        assert scene.reconcile().requeue_after is None
        assert (scene.state[0], scene.children) == ("Succeeded", [])


class TestOthers:
    def test_a_child_of_another_owner_is_reported_and_left_alone(self) -> None:
        scene = Scene()
        foreign = {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "x-finetune-1", "namespace": "team"},
            "spec": {"mine": True},
        }
        ref = scene.cluster.apply(foreign)
        scene.settle()
        assert scene.state == ("Pending", "NameTaken")
        assert "PyTorchJob/x-finetune-1" in scene.message
        assert scene.outcomes == [None]
        assert scene.cluster.objects[ref]["spec"] == {"mine": True}
        scene.cluster.remove(ref)
        scene.settle()
        assert scene.outcomes == [None]
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_children_of_a_deleted_namesake_are_awaited(self) -> None:
        scene = Scene()
        scene.settle()
        ref = Ref("kubeflow.org/v1", "PyTorchJob", "team", "x-finetune-1")
        left = scene.cluster.objects[ref]
        later = Scene()
        left["metadata"]["ownerReferences"][0]["uid"] = "uid-of-the-earlier-one"
        later.cluster.apply(left)
        later.settle()
        assert later.state == ("Pending", "Stopping")
        assert not later.status.holds("Stalled")
        later.cluster.remove(ref)
        later.settle()
        assert later.state == ("Starting", "Starting")

    def test_an_object_that_is_gone_or_going_is_left_alone(self) -> None:
        scene = Scene()
        scene.cluster.objects[scene.ref]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert scene.reconcile().requeue_after is None
        scene.cluster.remove(scene.ref)
        assert scene.reconcile().requeue_after is None
        assert scene.cluster.writes == []

    def test_everything_goes_with_the_object(self) -> None:
        scene = started("RLJob")
        scene.cluster.remove(scene.ref)
        scene.end_stopped_pods()
        assert scene.cluster.objects == {}

    def test_who_acts_on_an_old_view_creates_nothing_and_looks_again(self) -> None:
        scene = Scene()
        scene.cluster.before_write = lambda number: scene.cluster.edit(scene.ref, run={}) if number == 0 else None
        outcome = scene.reconcile()
        assert outcome.requeue_after == timedelta(seconds=1)
        assert scene.children == []
        scene.settle()
        assert scene.state == ("Starting", "Starting")
        assert scene.status.observed_generation == 2

    def test_an_edit_while_an_invalid_object_is_told_so_is_no_defect(self) -> None:
        scene = Scene(run={"retries": -1})
        scene.cluster.before_write = lambda number: scene.cluster.edit(scene.ref, run={}) if number == 0 else None
        assert scene.reconcile().requeue_after == timedelta(seconds=1)
        scene.settle()
        assert scene.state == ("Starting", "Starting")

    def test_an_edit_while_children_are_created_is_seen_by_the_next_pass(self) -> None:
        scene = Scene()
        scene.cluster.after_write = lambda number: (
            scene.cluster.edit(scene.ref, run={"suspend": True}) if number == 0 else None
        )
        scene.reconcile()
        assert scene.children == ["ConfigMap/x-finetune", "PyTorchJob/x-finetune-1"]
        scene.settle()
        assert scene.state == ("Suspended", "Suspended")
        assert (scene.children, scene.outcomes) == (["ConfigMap/x-finetune"], ["Suspended"])

    def test_an_attempt_is_on_record_before_its_first_child(self) -> None:
        scene = Scene()
        scene.cluster.before_write = crash_at(1)
        with pytest.raises(CrashError):
            scene.reconcile()
        assert (scene.children, scene.outcomes) == ([], [None])
        scene.settle()
        assert (scene.children, scene.outcomes) == (["ConfigMap/x-finetune", "PyTorchJob/x-finetune-1"], [None])

    def test_a_conflict_of_a_child_that_is_gone_at_the_next_look_is_tried_again(self) -> None:
        scene = Scene()

        def conflict(_: int) -> None:
            raise Conflict("taken")

        scene.cluster.before_write = conflict
        assert scene.reconcile().requeue_after == timedelta(seconds=1)

    def test_a_name_that_is_taken_and_then_is_not_costs_no_pass(self) -> None:
        scene = Scene()

        def conflict(write: int) -> None:
            if write in (2, 3):
                raise Conflict("taken")

        scene.cluster.before_write = conflict
        scene.reconcile()
        assert scene.children == ["ConfigMap/x-finetune", "PyTorchJob/x-finetune-1"]

    def test_a_cluster_that_does_not_answer_is_the_callers_matter(self) -> None:
        scene = Scene()

        def down(_: int) -> None:
            raise ApiUnavailable("down")

        scene.cluster.before_write = down
        with pytest.raises(ApiUnavailable):
            scene.reconcile()

    def test_an_invalid_object_says_so_once_and_goes_on_when_mended(self) -> None:
        scene = Scene(run={"retries": -1})
        scene.settle()
        assert scene.state == ("Failed", "InvalidSpec")
        assert not scene.status.finished
        scene.cluster.edit(scene.ref, run={})
        scene.settle()
        assert scene.state == ("Starting", "Starting")


class TestInputs:
    def reader_and_upstream(self) -> tuple[Scene, Scene]:
        upstream = Scene("FilterJob")
        reader = Scene(dataset={"from": "FilterJob/x"})
        del upstream.cluster.objects[upstream.ref]["metadata"]["uid"]
        reader.cluster.apply(upstream.cluster.objects[upstream.ref])
        upstream.cluster = reader.cluster
        return reader, upstream

    def test_a_job_waits_for_the_artifact_that_it_reads(self) -> None:
        reader, upstream = self.reader_and_upstream()
        reader.settle()
        assert (reader.state, reader.message) == (("Waiting", "WaitingForArtifact"), "FilterJob/x is Pending")
        upstream.settle()
        upstream.start_pods()
        upstream.end_workers(0, SUCCESS)
        upstream.settle()
        reader.settle()
        assert reader.state == ("Starting", "Starting")
        assert reader.status.inputs["dataset"].digest == "0" * 64

    def test_a_failed_upstream_stalls_its_reader_until_it_is_replaced(self) -> None:
        reader, upstream = self.reader_and_upstream()
        upstream.settle()
        upstream.start_pods()
        upstream.end_workers(64, failure(ExitCode.DATA, message="no column"))
        upstream.settle()
        reader.settle()
        assert reader.state == ("Waiting", "InputFailed")
        assert reader.status.holds("Stalled")
        again = upstream.cluster.objects[upstream.ref]
        upstream.cluster.remove(upstream.ref)
        del again["metadata"]["uid"], again["status"]
        upstream.cluster.apply(again)
        reader.settle()
        assert reader.state == ("Waiting", "WaitingForArtifact")

    def test_an_upstream_that_goes_while_the_job_runs_changes_nothing(self) -> None:
        reader, upstream = self.reader_and_upstream()
        upstream.settle()
        upstream.start_pods()
        upstream.end_workers(0, SUCCESS)
        upstream.settle()
        reader.settle()
        reader.start_pods()
        reader.cluster.remove(upstream.ref)
        reader.cluster.reads.clear()
        reader.settle()
        assert reader.state == ("Running", "Running")
        assert str(upstream.ref) not in reader.cluster.reads

    def test_a_cycle_is_told_by_every_member(self) -> None:
        scene = Scene(model={"from": "FineTuneJob/x"})
        scene.settle()
        assert scene.state == ("Failed", "InvalidSpec")
        assert "FineTuneJob/x -> FineTuneJob/x" in scene.message


class TestTheServiceOfServers:
    SERVICE = Ref("v1", "Service", "team", "x-serve-1")

    def test_it_is_made_again_while_the_attempt_is_at_work(self) -> None:
        scene = started("RLJob")
        before = set(scene.cluster.objects)
        scene.cluster.remove(self.SERVICE)
        scene.settle()
        assert set(scene.cluster.objects) == before
        assert scene.outcomes == [None]

    @pytest.mark.parametrize("change", [{"selector": {"a": "b"}}, {"clusterIP": "10.0.0.1"}, {"ports": []}])
    def test_it_is_brought_back_into_shape(self, change: Json) -> None:
        scene = started("RLJob")
        service = scene.cluster.objects[self.SERVICE]
        made = service["spec"]
        scene.cluster.apply({**service, "spec": {**made, **change}})
        scene.settle()
        assert scene.cluster.objects[self.SERVICE]["spec"] == made

    def test_what_the_api_server_adds_is_no_change(self) -> None:
        scene = started("RLJob")
        service = scene.cluster.objects[self.SERVICE]
        ports = [{**port, "protocol": "TCP", "targetPort": port["port"]} for port in service["spec"]["ports"]]
        scene.cluster.apply({**service, "spec": {**service["spec"], "ports": ports, "clusterIPs": ["None"]}})
        scene.settle()
        assert not [write for write in scene.cluster.writes if write.startswith("repair")]


def test_a_job_is_given_up_only_after_the_cluster_was_asked_again() -> None:
    scene = Scene(run={"pendingDeadline": "1h"})
    scene.settle()
    scene.wait()
    before = scene.cluster.refreshes
    scene.settle()
    assert scene.state == ("Failed", "PendingDeadlineExceeded")
    assert scene.cluster.refreshes > before


def test_a_new_attempt_begins_at_none_of_the_progress() -> None:
    scene = started()
    (pod, *_) = scene.pods()
    scene.cluster.answers[pod.name] = Progress(phase="training", step=7, total_steps=10, updated_at=0)
    scene.settle()
    assert scene.status.progress is not None
    scene.end_workers(147, failure(ExitCode.STORAGE))
    scene.cluster.answers.clear()
    retried(scene)
    assert scene.outcomes == ["Failed", None]
    assert scene.status.progress is None
