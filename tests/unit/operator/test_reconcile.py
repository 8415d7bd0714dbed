"""The loop over a cluster in memory: the way of a job, suspension, and one attempt at a time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import Progress
from posttrain_operator.cluster import Ref
from support.scene import SPECS, SUCCESS, Scene, crash_before_deletions, failure, retried, started


class TestTheWayOfAJob:
    @pytest.mark.parametrize("kind", SPECS)
    def test_it_succeeds_with_its_artifact(self, kind: str) -> None:
        scene = started(kind)
        scene.end_workers(0, SUCCESS)
        scene.settle()
        assert scene.state == ("Succeeded", "Succeeded")
        assert scene.status.artifact == SUCCESS.artifact
        assert scene.status.metrics == {"loss": 0.5}
        assert scene.outcomes == ["Succeeded"]

    @pytest.mark.parametrize("kind", SPECS)
    def test_a_second_pass_writes_nothing(self, kind: str) -> None:
        scene = Scene(kind)
        scene.reconcile()
        writes = list(scene.cluster.writes)
        assert len([write for write in writes if write.startswith("status")]) == 1
        scene.wait(timedelta(seconds=10))
        scene.reconcile()
        assert scene.cluster.writes == writes

    def test_a_running_job_is_looked_at_for_its_progress_and_written_when_it_moved(self) -> None:
        scene = started()
        scene.cluster.answers["x-finetune-1-worker-0"] = Progress(
            phase="training", step=5, total_steps=10, updated_at=0
        )
        outcome = scene.reconcile()
        assert outcome.requeue_after == scene.settings.progress_interval
        assert scene.status.progress is not None
        assert scene.status.progress.percent == 50
        writes = len(scene.cluster.writes)
        scene.reconcile()
        assert len(scene.cluster.writes) == writes

    def test_rollout_servers_come_before_the_trainer(self) -> None:
        scene = Scene("RLJob")
        scene.settle()
        assert scene.children == ["ConfigMap/x-serve", "Service/x-serve-1", "StatefulSet/x-serve-1"]
        scene.start_pods()
        scene.settle()
        assert "PyTorchJob/x-rl-1" in scene.children
        (config,) = [ref for ref in scene.cluster.of_kind("ConfigMap") if "-rl-" in ref.name]
        told = scene.cluster.objects[config]["data"]["stage.json"]
        assert "x-serve-1-0.x-serve-1.team.svc" in told
        assert "x-serve-1-1.x-serve-1.team.svc" in told

    def test_rollout_servers_go_when_the_trainer_is_done_and_its_workload_stays_for_its_logs(self) -> None:
        scene = started("RLJob")
        scene.end_workers(0, SUCCESS)
        scene.settle()
        assert scene.children == ["ConfigMap/x-rl", "ConfigMap/x-serve", "PyTorchJob/x-rl-1"]

    def test_a_failure_that_may_pass_is_tried_again_after_a_pause(self) -> None:
        scene = started()
        scene.end_workers(147, failure(ExitCode.STORAGE, "DiskFull", "full"))
        outcome = scene.reconcile()
        assert scene.state == ("Pending", "Retrying")
        assert outcome.requeue_after == timedelta(seconds=10)
        scene.settle()
        assert "PyTorchJob/x-finetune-2" not in scene.children
        scene.wait(timedelta(seconds=10))
        scene.settle()
        assert "PyTorchJob/x-finetune-2" in scene.children
        assert scene.outcomes == ["Failed", None]

    def test_a_preemption_is_followed_at_once(self) -> None:
        scene = started(run={"retries": 0})
        scene.end_workers(143, failure(ExitCode.PREEMPTED))
        scene.settle()
        assert scene.outcomes == ["Preempted", None]

    def test_retries_are_used_up(self) -> None:
        scene = started(run={"retries": 2})
        for _ in range(3):
            scene.end_workers(147, failure(ExitCode.STORAGE, "DiskFull", "full"))
            retried(scene)
            scene.start_pods()
            scene.settle()
        assert scene.state == ("Failed", "DiskFull")
        assert scene.outcomes == ["Failed"] * 3
        assert scene.message == "full (after 3 attempts)"

    def test_children_that_vanish_are_made_anew_at_no_cost(self) -> None:
        scene = started(run={"retries": 0})
        scene.cluster.remove(Ref("kubeflow.org/v1", "PyTorchJob", "team", "x-finetune-1"))
        retried(scene)
        assert scene.outcomes == ["Lost", None]

    def test_a_deadline_is_over_all_attempts(self) -> None:
        scene = started(run={"deadline": "2h"})
        scene.end_workers(143, failure(ExitCode.PREEMPTED))
        retried(scene)
        scene.start_pods()
        scene.settle()
        scene.wait(timedelta(minutes=61))
        scene.settle()
        assert scene.state == ("Failed", "DeadlineExceeded")
        scene.end_stopped_pods()
        assert scene.live_attempts() == set()

    def test_a_deadline_counts_from_the_first_attempt_even_when_that_is_no_longer_listed(self) -> None:
        scene = started(run={"deadline": "2h"})
        told = dict(scene.cluster.objects[scene.ref]["status"])
        scene.wait()
        scene.cluster.set_status(
            scene.ref,
            attempts=[{**told["attempts"][0], "startTime": "2026-01-01T12:30:00Z"}],
            startTime="2026-01-01T10:59:00Z",
        )
        scene.settle()
        assert scene.state == ("Failed", "DeadlineExceeded")

    def test_a_deadline_passes_while_a_retry_is_awaited(self) -> None:
        scene = started(run={"deadline": "1s"})
        scene.end_workers(147, failure(ExitCode.STORAGE))
        scene.settle()
        scene.wait()
        scene.settle()
        assert scene.state == ("Failed", "DeadlineExceeded")
        assert scene.outcomes == ["Failed"]


class TestSuspension:
    def test_it_stops_the_pods_and_then_closes_the_attempt(self) -> None:
        scene = started("RLJob")
        scene.cluster.edit(scene.ref, run={"suspend": True})
        scene.settle()
        assert scene.state == ("Suspended", "Suspended")
        assert scene.children == ["ConfigMap/x-rl", "ConfigMap/x-serve"]
        assert scene.outcomes == [None]
        scene.end_stopped_pods()
        scene.settle()
        assert scene.outcomes == ["Suspended"]

    def test_it_goes_on_at_no_cost(self) -> None:
        scene = started(run={"retries": 0})
        scene.cluster.edit(scene.ref, run={"suspend": True, "retries": 0})
        scene.settle()
        scene.end_stopped_pods()
        scene.settle()
        scene.cluster.edit(scene.ref, run={"retries": 0})
        scene.settle()
        assert scene.outcomes == ["Suspended", None]

    def test_it_creates_nothing(self) -> None:
        scene = Scene(run={"suspend": True})
        scene.settle()
        assert (scene.state, scene.children) == (("Suspended", "Suspended"), [])

    def test_success_wins_over_it(self) -> None:
        scene = started()
        scene.end_workers(0, SUCCESS)
        scene.cluster.edit(scene.ref, run={"suspend": True})
        scene.settle()
        assert scene.state == ("Succeeded", "Succeeded")

    def test_servers_of_a_failed_attempt_go_although_nobody_deleted_them_before_it(self) -> None:
        scene = started("RLJob")
        scene.end_workers(147, failure(ExitCode.STORAGE))
        crash_before_deletions(scene)
        scene.cluster.edit(scene.ref, run={"suspend": True})
        scene.settle()
        assert not any("servers-1" in child for child in scene.children if not child.startswith("ConfigMap"))


class TestTheGracePeriod:
    """torchrun kills what is still saving in time for the supervisor to tell about it."""

    @pytest.mark.parametrize(("grace", "saving"), [(300, "285"), (900, "885"), (60, "45"), (20, "10")])
    def test_most_of_it_is_for_saving(self, grace: int, saving: str) -> None:
        assert self.environment(grace)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == saving

    def test_the_jobs_own_environment_goes_first(self) -> None:
        run = {"env": [{"name": "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "value": "7"}]}
        assert self.environment(300, run=run)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "7"

    def environment(self, grace: int, **run: Any) -> dict[str, str]:
        scene = Scene(**run)
        scene.settings = replace(scene.settings, termination_grace=timedelta(seconds=grace))
        scene.settle()
        (job,) = (obj for ref, obj in scene.cluster.objects.items() if ref.kind == "PyTorchJob")
        pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == grace
        return {variable["name"]: variable.get("value", "") for variable in pod["containers"][0]["env"]}


class TestOneAttemptAtATime:
    def test_nothing_is_created_while_pods_of_an_earlier_attempt_live(self) -> None:
        scene = started()
        (first, second) = scene.pods()
        scene.end(first, 147, failure(ExitCode.STORAGE))
        scene.wait()
        scene.settle()
        scene.wait()
        scene.settle()
        assert scene.state == ("Pending", "Stopping")
        assert "PyTorchJob/x-finetune-2" not in scene.children
        scene.cluster.end_pod(second, 143)
        scene.settle()
        assert "PyTorchJob/x-finetune-2" in scene.children

    def test_servers_of_an_earlier_attempt_go_before_new_ones_come(self) -> None:
        scene = started("RLJob")
        scene.end_workers(147, failure(ExitCode.STORAGE))
        crash_before_deletions(scene)
        for pod in scene.pods("servers"):
            scene.cluster.end_pod(pod, 0)
        scene.wait()
        scene.settle()
        writes = scene.cluster.writes
        gone, come = writes.index("delete StatefulSet/x-serve-1"), writes.index("create StatefulSet/x-serve-2")
        assert gone < come

    def test_pods_of_an_earlier_object_with_the_same_name_are_awaited(self) -> None:
        scene = started()
        earlier = scene.cluster.objects[scene.ref]
        scene.cluster.remove(scene.ref)
        del earlier["metadata"]["uid"], earlier["status"]
        scene.cluster.apply(earlier)
        scene.settle()
        assert (scene.state, scene.children) == (("Pending", "Stopping"), [])
        scene.end_stopped_pods()
        scene.settle()
        assert scene.children == ["ConfigMap/x-finetune", "PyTorchJob/x-finetune-1"]

    def test_a_lost_status_stops_nothing_that_is_at_work(self) -> None:
        scene = started(run={"retries": 5})
        scene.end_workers(147, failure(ExitCode.STORAGE))
        retried(scene)
        scene.start_pods()
        scene.cluster.set_status(scene.ref, attempts="Garbled")
        scene.settle()
        assert scene.state == ("Running", "Running")
        assert [attempt.number for attempt in scene.status.attempts] == [2]
        assert scene.live_attempts() == {"2"}
