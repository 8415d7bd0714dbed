"""Children of a queue: what the object tells of its wait, and what an admission taken back means for an attempt."""

from datetime import timedelta

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator import labels
from posttrain_operator.api.status import Condition
from posttrain_operator.cluster import Ref
from support.kueue_words import (
    PREEMPTION,
    TOO_MUCH,
    UNUSED,
    admit,
    ask,
    child,
    evict,
    stamp,
    stop,
    tell,
    waits,
    workload,
)
from support.memory_cluster import owner_reference
from support.scene import SUCCESS, Scene, failure

QUEUED = {"queue": "team-a"}


def queued(kind: str = "FineTuneJob", **run: object) -> Scene:
    """A scene whose first attempt waits in a queue."""
    scene = Scene(kind, run={**QUEUED, **run})
    scene.settle()
    return scene


def admitted(kind: str = "FineTuneJob", main: str = "PyTorchJob") -> tuple[Scene, Ref]:
    """A scene whose only child is admitted and runs, and its Workload."""
    scene = queued(kind)
    ref = ask(scene, main)
    admit(scene, ref)
    scene.start_pods()
    scene.settle()
    assert scene.state == ("Running", "Running")
    return scene, ref


def both_admitted() -> tuple[Scene, Ref, Ref]:
    """An RLJob at work, and the Workloads of its servers and of its trainer."""
    scene = queued("RLJob")
    servers = ask(scene, "StatefulSet")
    admit(scene, servers)
    scene.start_pods()
    scene.settle()
    trainer = ask(scene)
    admit(scene, trainer)
    scene.start_pods()
    scene.settle()
    assert scene.state == ("Running", "Running")
    return scene, servers, trainer


def condition(scene: Scene) -> Condition:
    """The condition Admitted."""
    found = scene.status.condition("Admitted")
    assert found is not None
    return found


class TestTheWaitInWords:
    def test_there_is_no_condition_without_a_queue(self) -> None:
        scene = Scene()
        scene.settle()
        assert scene.status.condition("Admitted") is None

    @pytest.mark.parametrize(("kind", "main"), [("FineTuneJob", "PyTorchJob"), ("FilterJob", "Job")])
    def test_children_are_created_suspended_and_labelled(self, kind: str, main: str) -> None:
        scene = queued(kind, priorityClass="high")
        made = scene.cluster.objects[child(scene, main)]
        assert made["spec"].get("suspend") or made["spec"]["runPolicy"]["suspend"]
        assert made["metadata"]["labels"][labels.QUEUE] == "team-a"
        assert made["metadata"]["labels"][labels.PRIORITY] == "high"

    def test_before_kueue_has_noticed(self) -> None:
        scene = queued()
        assert scene.state == ("Queued", "Queued")
        assert (condition(scene).status, condition(scene).reason) == ("False", "Queued")
        assert "Kueue has not looked at it yet" in scene.message

    def test_quota_is_missing_in_kueues_own_words(self) -> None:
        scene = queued()
        waits(scene, ask(scene))
        scene.settle()
        assert scene.state == ("Queued", "QuotaMissing")
        assert scene.message == (
            "waiting in queue team-a: insufficient unused quota for nvidia.com/gpu in flavor default, 4 more needed"
        )
        assert (condition(scene).reason, condition(scene).message) == ("QuotaMissing", scene.message)

    @pytest.mark.parametrize(
        ("others", "told"), [(0, "team-a: "), (1, "behind 1 other: "), (3, "behind 3 others: "), (40, "more than 30 ")]
    )
    def test_its_place_counts_those_that_are_asked_first(self, others: int, told: str) -> None:
        scene = queued()
        for number in range(others):
            waits(scene, workload(scene, f"older-{number}", at=scene.now - timedelta(minutes=1)))
        workload(scene, "younger", at=scene.now + timedelta(minutes=1))
        workload(scene, "elsewhere", at=scene.now - timedelta(minutes=1), queueName="team-b")
        workload(scene, "held", at=scene.now - timedelta(minutes=1), active=False)
        tell(
            scene,
            workload(scene, "has-it", at=scene.now - timedelta(minutes=1)),
            QuotaReserved=("True", "QuotaReserved", ""),
        )
        waits(scene, ask(scene))
        scene.settle()
        assert told in scene.message

    def test_a_higher_priority_is_asked_first(self) -> None:
        scene = queued()
        workload(scene, "important", at=scene.now + timedelta(hours=1), priority=100)
        waits(scene, ask(scene, priority=1))
        scene.settle()
        assert "behind 1 other" in scene.message

    @pytest.mark.parametrize("reason", ["Pending", "ExceedsMaxQuota"])
    def test_what_can_never_fit_waits_for_a_person(self, reason: str) -> None:
        scene = queued()
        waits(scene, ask(scene), TOO_MUCH, reason)
        scene.settle()
        assert scene.state == ("Queued", "NeverFits")
        assert scene.status.holds("Stalled")
        assert "maximum capacity (16)" in scene.message

    def test_one_flavor_that_is_too_small_does_not_mean_never(self) -> None:
        scene = queued()
        waits(scene, ask(scene), f"{TOO_MUCH}, {UNUSED}")
        scene.settle()
        assert scene.state == ("Queued", "QuotaMissing")

    @pytest.mark.parametrize(
        ("told", "stalled"),
        [("LocalQueue team-a is terminating or missing", True), ("ClusterQueue gpus is stopped", False)],
    )
    def test_a_queue_that_admits_nobody(self, told: str, *, stalled: bool) -> None:
        scene = queued()
        waits(scene, ask(scene), told, "Inadmissible")
        scene.settle()
        assert scene.state == ("Queued", "QueueInactive")
        assert told in scene.message
        assert scene.status.holds("Stalled") is stalled

    def test_a_workload_that_is_not_active(self) -> None:
        scene = queued()
        ask(scene, active=False)
        scene.settle()
        assert scene.state == ("Queued", "Deactivated")
        assert scene.status.holds("Stalled")

    def test_admission_checks_are_pending(self) -> None:
        scene = queued()
        lacking = ("False", "UnsatisfiedChecks", "The workload has not all checks ready")
        tell(scene, ask(scene), QuotaReserved=("True", "QuotaReserved", ""), Admitted=lacking)
        scene.settle()
        assert scene.state == ("Queued", "ChecksPending")
        assert scene.message == "quota is kept in queue team-a: The workload has not all checks ready"

    def test_once_admitted_the_condition_says_so(self) -> None:
        scene, _ = admitted()
        assert (condition(scene).status, condition(scene).message) == ("True", "admitted by queue team-a")

    def test_kueue_of_another_configuration_suspends_what_has_no_queue(self) -> None:
        scene = Scene()
        scene.settle()
        scene.cluster.objects[child(scene, "PyTorchJob")]["spec"]["runPolicy"]["suspend"] = True
        ask(scene)
        scene.settle()
        assert scene.state == ("Queued", "QueueInactive")
        assert "set run.queue" in scene.message

    def test_a_queue_that_kueue_chose_by_default_is_no_change(self) -> None:
        scene = Scene()
        scene.settle()
        made = scene.cluster.objects[child(scene, "PyTorchJob")]
        made["spec"]["runPolicy"]["suspend"] = True
        made["metadata"]["labels"][labels.QUEUE] = "default"
        waits(scene, ask(scene))
        scene.settle()
        assert scene.state == ("Queued", "QuotaMissing")
        assert scene.outcomes == [None]


class TestAdmissionTakenBack:
    def test_the_same_child_goes_on_when_it_is_admitted_again(self) -> None:
        scene, ref = admitted()
        evict(scene, ref)
        scene.settle()
        assert scene.state == ("Queued", "Preempted")
        assert condition(scene).status == "False"
        stop(scene, ref)
        scene.settle()
        scene.end_stopped_pods()
        scene.settle()
        assert (scene.state, scene.outcomes, scene.pods()) == (("Queued", "Preempted"), [None], [])
        scene.wait()
        admit(scene, ref)
        scene.start_pods()
        scene.settle()
        assert scene.state == ("Running", "Running")
        scene.end_workers(0, SUCCESS)
        scene.settle()
        assert scene.outcomes == ["Succeeded"]

    def test_pods_that_stop_because_of_it_are_no_end(self) -> None:
        scene, ref = admitted()
        evict(scene, ref)
        for pod in scene.pods():  # a checkpoint is saved, and nobody has deleted them yet
            scene.cluster.end_pod(pod, ExitCode.PREEMPTED, failure(ExitCode.PREEMPTED), at=scene.now)
        scene.settle()
        assert (scene.state, scene.outcomes) == (("Queued", "Preempted"), [None])
        stop(scene, ref)
        scene.settle()
        assert (scene.state, scene.outcomes) == (("Queued", "Preempted"), [None])

    def test_pods_that_are_deleted_before_anything_else_is_seen_are_an_end_that_costs_nothing(self) -> None:
        scene, _ = admitted()
        for pod in scene.pods():
            scene.cluster.objects[pod]["metadata"]["deletionTimestamp"] = stamp(scene.now)
        scene.settle()
        assert scene.outcomes == ["Preempted"]

    def test_a_child_that_fails_because_of_it_costs_nothing(self) -> None:
        scene, ref = admitted()
        evict(scene, ref)
        scene.end(scene.pods()[0], ExitCode.KILLED)
        scene.settle()
        assert scene.outcomes[0] == "Preempted"

    def test_a_failure_of_its_own_is_one_all_the_same(self) -> None:
        scene, ref = admitted()
        evict(scene, ref)
        scene.end(scene.pods()[0], ExitCode.DATA, failure(ExitCode.DATA, "BadData"))
        scene.settle()
        assert scene.state == ("Failed", "BadData")

    def test_it_names_who_took_the_quota_in_the_same_namespace(self) -> None:
        scene, ref = admitted()
        urgent = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "urgent", "uid": "job-7"}
        other = workload(scene, "urgent", owner=urgent)
        uid = scene.cluster.objects[other]["metadata"]["uid"]
        evict(scene, ref, message=PREEMPTION.format(uid=uid, job="job-7"))
        scene.settle()
        assert "preempted for PyTorchJob/urgent due to prioritization in the ClusterQueue" in scene.message
        assert "goes on from its newest checkpoint" in scene.message

    def test_it_names_nobody_of_another_namespace(self) -> None:
        scene, ref = admitted()
        evict(scene, ref)
        scene.settle()
        assert "preempted for a workload of another namespace" in scene.message

    def test_why_it_waits_then_is_told_too(self) -> None:
        scene, ref = admitted()
        evict(scene, ref)
        stop(scene, ref)
        waits(scene, ref)
        scene.settle()
        assert scene.state == ("Queued", "Preempted")
        assert "4 more needed" in scene.message

    def test_another_eviction_is_told_as_such(self) -> None:
        scene, ref = admitted()
        evict(scene, ref, "ClusterQueueStopped", "The ClusterQueue is stopped")
        scene.settle()
        assert scene.state == ("Queued", "Evicted")
        assert "The ClusterQueue is stopped" in scene.message


class TestAnRLJob:
    def test_the_trainer_follows_as_soon_as_its_servers_are_admitted(self) -> None:
        scene = queued("RLJob")
        assert scene.cluster.of_kind("PyTorchJob") == []
        servers = ask(scene, "StatefulSet")
        waits(scene, servers)
        scene.settle()
        assert scene.state == ("Queued", "QuotaMissing")
        assert scene.message.startswith("rollout servers: waiting in queue team-a")
        admit(scene, servers)
        scene.settle()
        assert len(scene.cluster.of_kind("PyTorchJob")) == 1
        waits(scene, ask(scene))
        scene.settle()
        assert scene.message.startswith("trainer: waiting in queue team-a")
        assert condition(scene).status == "False"

    def test_it_is_admitted_when_both_are(self) -> None:
        scene, *_ = both_admitted()
        assert condition(scene).status == "True"

    @pytest.mark.parametrize("which", ["servers", "trainer"])
    def test_one_of_the_two_taken_back_ends_the_attempt_at_no_cost(self, which: str) -> None:
        scene, servers, trainer = both_admitted()
        evict(scene, servers if which == "servers" else trainer)
        scene.settle()
        assert scene.outcomes == ["Preempted"]
        assert not any(name.startswith(("StatefulSet", "PyTorchJob")) for name in scene.children)
        scene.end_stopped_pods()
        scene.settle()
        assert scene.outcomes == ["Preempted", None]
        assert "StatefulSet/x-serve-2" in scene.children

    def test_a_trainer_that_lost_servers_taken_back_costs_nothing(self) -> None:
        scene, servers, _ = both_admitted()
        evict(scene, servers)
        scene.end_workers(ExitCode.SERVER_LOST, failure(ExitCode.SERVER_LOST, "ServerLost"))
        scene.settle()
        assert scene.outcomes[0] == "Preempted"

    def test_servers_that_kueue_itself_tries_again_are_left_to_it(self) -> None:
        scene, servers, _ = both_admitted()
        evict(scene, servers, "PodsReadyTimeout", "Exceeded the PodsReady timeout")
        scene.settle()
        assert (scene.state, scene.outcomes) == (("Queued", "Evicted"), [None])

    def test_one_half_is_let_go_when_the_other_does_not_come(self) -> None:
        scene = queued("RLJob")
        scene.wait()  # without any quota it may wait for ever
        servers = ask(scene, "StatefulSet")
        admit(scene, servers)
        scene.settle()
        waits(scene, ask(scene))
        scene.wait(timedelta(minutes=9))
        scene.settle()
        assert scene.outcomes == [None]
        scene.wait(timedelta(minutes=1))
        scene.settle()
        assert scene.outcomes == ["Released"]
        assert scene.status.attempts[0].reason == "QuotaReleased"
        assert scene.children == ["ConfigMap/x-rl", "ConfigMap/x-serve"]

    def test_one_half_is_let_go_when_the_other_cannot_be_made(self) -> None:
        scene = queued("RLJob")
        foreign = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"suspend": True}}
        scene.cluster.apply({**foreign, "metadata": {"name": "x-rl-1", "namespace": "team"}})
        admit(scene, ask(scene, "StatefulSet"))
        scene.settle()
        assert scene.state[1] == "NameTaken"
        scene.wait(timedelta(minutes=10))
        scene.settle()
        assert scene.outcomes[0] == "Released"
        assert "StatefulSet/x-serve-1" not in scene.children

    def test_it_waits_twice_as_long_the_next_time(self) -> None:
        scene = queued("RLJob")
        for minutes in (10, 20, 40):
            admit(scene, ask(scene, "StatefulSet"))
            scene.settle()
            scene.wait(timedelta(minutes=minutes) - timedelta(seconds=1))
            scene.settle()
            assert scene.outcomes[-1] is None
            scene.wait(timedelta(seconds=1))
            scene.settle()
            assert scene.outcomes[-1] == "Released"
            scene.wait(timedelta(minutes=1))
            scene.settle()


class TestNobodyManagesTheChild:
    def unmanaged(self, kind: str = "FineTuneJob", main: str = "PyTorchJob") -> Scene:
        scene = queued(kind)
        scene.cluster.objects[child(scene, main)]["metadata"]["creationTimestamp"] = stamp(scene.now)
        return scene

    def test_it_is_told_after_a_grace_time_with_the_remedy(self) -> None:
        scene = self.unmanaged()
        scene.wait(timedelta(seconds=60))
        scene.settle()
        assert scene.state == ("Queued", "Queued")
        scene.wait(timedelta(seconds=1))
        scene.settle()
        assert scene.state == ("Queued", "QueueNotManaged")
        assert scene.status.holds("Stalled")
        assert "enable kubeflow.org/pytorchjob in integrations.frameworks" in scene.message
        assert "or remove run.queue" in scene.message

    def test_it_recovers_by_itself(self) -> None:
        scene = self.unmanaged()
        scene.wait()
        scene.settle()
        admit(scene, ask(scene))
        scene.start_pods()
        scene.settle()
        assert (scene.state, scene.outcomes) == (("Running", "Running"), [None])

    def test_servers_that_run_outside_the_quota_are_deleted_and_tried_again_later(self) -> None:
        scene = self.unmanaged("RLJob", "StatefulSet")
        scene.start_pods()
        scene.wait(timedelta(seconds=61))
        scene.settle()
        scene.end_stopped_pods()
        scene.wait(timedelta(seconds=30))
        scene.settle()
        assert scene.outcomes == ["Released"]
        assert scene.state == ("Queued", "QueueNotManaged")
        assert scene.children == ["ConfigMap/x-serve"]
        scene.wait(timedelta(minutes=10))
        scene.settle()
        assert "StatefulSet/x-serve-2" in scene.children

    def test_servers_that_are_held_back_wait(self) -> None:
        scene = self.unmanaged("RLJob", "StatefulSet")
        scene.start_pods()
        gated = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
        for pod in scene.pods():
            scene.cluster.set_status(pod, phase="Pending", conditions=gated)
        scene.wait()
        scene.settle()
        assert (scene.state, scene.outcomes) == (("Queued", "QueueNotManaged"), [None])


class TestTheQueueIsChanged:
    def test_without_its_queue_the_child_is_made_again_and_starts(self) -> None:
        scene = queued()
        scene.cluster.edit(scene.ref, run={})
        scene.settle()
        scene.wait(timedelta(seconds=10))
        scene.settle()
        assert scene.outcomes == ["Released", None]
        made = scene.cluster.objects[child(scene, "PyTorchJob")]
        assert labels.QUEUE not in made["metadata"]["labels"]
        assert made["spec"]["runPolicy"]["suspend"] is False
        scene.start_pods()
        scene.settle()
        assert scene.state == ("Running", "Running")

    @pytest.mark.parametrize("run", [{"queue": "team-b"}, {"queue": "team-a", "priorityClass": "high"}])
    def test_another_queue_or_priority_makes_it_again(self, run: dict[str, str]) -> None:
        scene = queued()
        waits(scene, ask(scene))
        scene.cluster.edit(scene.ref, run=run)
        scene.settle()
        scene.wait(timedelta(seconds=10))
        scene.settle()
        assert scene.outcomes == ["Released", None]
        made = scene.cluster.objects[child(scene, "PyTorchJob")]["metadata"]["labels"]
        assert (made[labels.QUEUE], made.get(labels.PRIORITY)) == (run["queue"], run.get("priorityClass"))

    def test_what_is_at_work_stays_at_work(self) -> None:
        scene, _ = admitted()
        scene.cluster.edit(scene.ref, run={"queue": "team-b"})
        scene.settle()
        assert (scene.state, scene.outcomes) == (("Running", "Running"), [None])


class TestTheLine:
    def line(self, *names: str) -> Scene:
        """An RLJob that came at noon, and others of the same queue by name and hour."""
        scene = Scene("RLJob", run=QUEUED)
        mine = scene.cluster.objects[scene.ref]
        mine["metadata"]["creationTimestamp"] = stamp(scene.now)
        for number, name in enumerate(names):
            other = {**mine, "metadata": {"name": name, "namespace": "team"}}
            other["metadata"]["creationTimestamp"] = stamp(scene.now - timedelta(hours=1 + number))
            scene.cluster.apply(other)
        return scene

    def other(self, scene: Scene, name: str) -> Ref:
        return Ref(scene.ref.api_version, "RLJob", "team", name)

    def told(self, scene: Scene, name: str, *, reason: str, attempt: bool = False, **holding: bool) -> None:
        """Gives another RLJob a status."""
        said = {"Ready": False, **holding}
        conditions = [
            {"type": kind, "status": str(status), "reason": reason, "message": "", "observedGeneration": 1}
            | {"lastTransitionTime": stamp(scene.now)}
            for kind, status in said.items()
        ]
        attempts = [{"number": 1, "startTime": stamp(scene.now)}] if attempt else []
        scene.cluster.set_status(self.other(scene, name), conditions=conditions, attempts=attempts)

    def settle(self, scene: Scene) -> None:
        """As long as it takes to be seen by all."""
        scene.settle()
        scene.wait(timedelta(seconds=1))
        scene.settle()

    def test_the_only_one_begins_at_once(self) -> None:
        assert "StatefulSet/x-serve-1" in queued("RLJob").children

    def test_the_older_one_goes_first_even_before_it_was_looked_at(self) -> None:
        scene = self.line("older")
        self.settle(scene)
        assert scene.state == ("Queued", "WaitingForTurn")
        assert scene.status.attempts == ()
        assert "another comes first" in scene.message
        assert condition(scene).reason == "WaitingForTurn"

    def test_the_next_begins_when_the_first_is_admitted(self) -> None:
        scene = self.line("older")
        self.told(scene, "older", reason="Queued", attempt=True)
        self.settle(scene)
        assert scene.state == ("Queued", "WaitingForTurn")
        self.told(scene, "older", reason="Running", attempt=True, Admitted=True)
        self.settle(scene)
        assert "StatefulSet/x-serve-1" in scene.children

    @pytest.mark.parametrize(
        "reason", ["WaitingForArtifact", "Retrying", "Stopping"], ids=["inputs", "back-off", "ending pods"]
    )
    def test_who_cannot_begin_holds_nobody_up(self, reason: str) -> None:
        scene = self.line("older")
        self.told(scene, "older", reason=reason)
        self.settle(scene)
        assert "StatefulSet/x-serve-1" in scene.children

    @pytest.mark.parametrize("word", ["Stalled", "Failed", "Succeeded"])
    def test_who_is_stuck_or_finished_holds_nobody_up(self, word: str) -> None:
        scene = self.line("older")
        self.told(scene, "older", reason="Whatever", attempt=True, **{word: True})
        self.settle(scene)
        assert "StatefulSet/x-serve-1" in scene.children

    def test_who_is_suspended_holds_nobody_up(self) -> None:
        scene = self.line("older")
        scene.cluster.edit(self.other(scene, "older"), run={**QUEUED, "suspend": True})
        self.told(scene, "older", reason="Suspended", attempt=True)
        self.settle(scene)
        assert "StatefulSet/x-serve-1" in scene.children

    def test_who_let_go_stands_behind(self) -> None:
        scene = self.line("older")
        self.told(scene, "older", reason="WaitingForTurn")
        ended = {"number": 1, "startTime": stamp(scene.now), "endTime": stamp(scene.now + timedelta(minutes=1))}
        scene.cluster.set_status(self.other(scene, "older"), attempts=[{**ended, "outcome": "Released"}])
        self.settle(scene)
        assert "StatefulSet/x-serve-1" in scene.children

    def test_those_who_become_ready_at_once_see_each_other_before_one_begins(self) -> None:
        scene = self.line("older")
        self.told(scene, "older", reason="WaitingForArtifact")
        outcome = scene.reconcile()
        assert (scene.state, outcome.requeue_after) == (("Queued", "WaitingForTurn"), timedelta(seconds=1))
        self.told(scene, "older", reason="WaitingForTurn")
        self.settle(scene)
        assert scene.status.attempts == ()

    def test_another_queue_of_the_same_cluster_queue_counts(self) -> None:
        scene = self.line("older")
        for name, target in (("team-a", "gpus"), ("team-b", "gpus"), ("team-c", "others")):
            metadata = {"name": name, "namespace": "team"}
            queue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": metadata}
            scene.cluster.apply({**queue, "spec": {"clusterQueue": target}})
        scene.cluster.edit(self.other(scene, "older"), run={"queue": "team-b"})
        self.settle(scene)
        assert scene.state == ("Queued", "WaitingForTurn")
        scene.cluster.edit(self.other(scene, "older"), run={"queue": "team-c"})
        self.settle(scene)
        assert "StatefulSet/x-serve-1" in scene.children

    def test_an_attempt_on_record_goes_on_whoever_else_is_there(self) -> None:
        scene = queued("RLJob")
        scene.cluster.remove(child(scene, "StatefulSet"))
        older = {**scene.cluster.objects[scene.ref], "metadata": {"name": "older", "namespace": "team"}, "status": {}}
        older["metadata"]["creationTimestamp"] = stamp(scene.now - timedelta(hours=1))
        scene.cluster.apply(older)
        scene.settle()
        assert "StatefulSet/x-serve-1" in scene.children

    def test_other_kinds_do_not_stand_in_it(self) -> None:
        scene = queued("RLJob")
        tuning = {
            **scene.cluster.objects[scene.ref],
            "kind": "FineTuneJob",
            "metadata": {"name": "y", "namespace": "team"},
        }
        scene.cluster.apply(tuning)
        scene.settle()
        assert "StatefulSet/x-serve-1" in scene.children


def test_a_workload_is_found_by_its_owner_or_by_the_uid_of_the_job() -> None:
    scene = queued("RLJob")
    servers = scene.cluster.objects[child(scene, "StatefulSet")]
    by_label = {**owner_reference(servers), "uid": "of-a-pod", "kind": "Pod"}
    ref = workload(scene, "group", owner=by_label)
    scene.cluster.objects[ref]["metadata"]["labels"] = {"kueue.x-k8s.io/job-uid": servers["metadata"]["uid"]}
    waits(scene, ref)
    scene.settle()
    assert scene.state == ("Queued", "QuotaMissing")
