"""What people do to jobs and to what belongs to them: suspend, edit, delete, and put things in the way."""

import threading
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Json, Ref
from support.api import ApiError
from support.playground import MAIN_KINDS, PlayedJob, Playground
from support.pod_lives import at_attempt, fails, held, never_starts, runs, works, works_until
from support.stories import DONE, NO_RETRY, costs

pytestmark = pytest.mark.timeout(300)

FULL = fails(ExitCode.STORAGE, "DiskFull", "the disk is full")
OFTEN = ("RLJob", "UploadJob")
"""A gang with servers, and a plain Job; the others are like them."""
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.slow) for kind in KINDS]
)


def main_of(job: PlayedJob) -> Ref:
    """The child whose end is the present attempt's."""
    return Ref.of(next(child for child in job.children if child["kind"] in MAIN_KINDS))


class TestSuspension:
    @every_kind
    def test_it_stops_what_runs_and_goes_on_in_a_new_attempt_at_no_cost(self, ground: Playground, kind: str) -> None:
        over = threading.Event()
        job = ground.submit(kind, works_until(over), run=NO_RETRY)
        job.reach("Running")
        job.edit(suspend=True)
        job.wait(lambda: job.attempts == ["1 Suspended Suspended"], "be stopped")
        assert job.state == ("Suspended", "Suspended")
        assert costs(job) == []
        job.edit(suspend=False)
        job.reach("Running", attempt=2)
        over.set()
        job.finish()
        assert job.attempts == ["1 Suspended Suspended", f"2 {DONE}"]

    def test_a_job_may_begin_suspended(self, ground: Playground) -> None:
        job = ground.submit(run={"suspend": True})
        job.reach("Suspended")
        assert (job.attempts, job.made) == ([], [])
        job.edit(suspend=False)
        job.finish()

    def test_the_time_suspended_counts_for_no_deadline(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=works_until(over))
        job.reach("Running")
        job.edit(suspend=True)
        job.wait(lambda: job.attempts == ["1 Suspended Suspended"], "be stopped")
        job.edit(suspend=False, deadline="1h")
        over.set()
        job.finish()


class TestEditsOfRun:
    def test_what_to_do_stays_as_it_is(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=works_until(over))
        job.reach("Running")
        with pytest.raises(ApiError, match=r"spec\.dataset cannot be changed after creation; create a new object"):
            ground.api.patch(job.ref, {"spec": {"dataset": {"uri": "pvc://data/other"}}})
        over.set()
        job.finish()

    def test_more_retries_are_given(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=held(over, at_attempt({1: FULL})), run=NO_RETRY)
        job.reach("Running")
        job.edit(retries=1)
        job.wait(lambda: job.status.observed_generation == 2, "be looked at")
        over.set()
        job.finish()
        assert job.attempts == ["1 Failed 147 DiskFull", f"2 {DONE}"]

    def test_the_next_attempt_is_made_as_the_edit_says(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=held(over, at_attempt({1: FULL, 2: runs})))
        job.reach("Running")
        job.edit(resources={"memory": "8Gi"})
        job.wait(lambda: job.status.observed_generation == 2, "be looked at")
        first = main_of(job)
        assert memory(ground.api.get(first)) == "4Gi"
        over.set()
        job.reach("Running", attempt=2)
        assert (
            memory(ground.api.get(Ref(first.api_version, first.kind, first.namespace, f"{job.ref.name}-finetune-2")))
            == "8Gi"
        )

    def test_an_ended_job_notices_an_edit_and_does_nothing(self, ground: Playground) -> None:
        job = ground.submit("UploadJob", FULL, run=NO_RETRY)
        job.finish("Failed", "DiskFull")
        job.edit(retries=5)
        job.wait(lambda: job.status.observed_generation == 2, "be looked at")
        assert job.attempts == ["1 Failed 147 DiskFull"]
        assert job.kstatus == "Failed"


class TestTimeToLive:
    @every_kind
    def test_children_go_and_the_job_stays(self, ground: Playground, kind: str) -> None:
        job = ground.submit(kind, run={"ttlAfterFinished": "1s"})
        job.finish()
        told = job.status
        job.wait(lambda: not job.children and not job.pods, "lose its children")
        assert job.status == told
        assert job.exists

    def test_it_may_be_set_when_the_job_has_ended(self, ground: Playground) -> None:
        job = ground.submit("UploadJob", FULL, run=NO_RETRY)
        job.finish("Failed", "DiskFull")
        assert job.children
        job.edit(ttlAfterFinished="1s")
        job.wait(lambda: not job.children and not job.pods, "lose its children")
        assert job.attempts == ["1 Failed 147 DiskFull"]


class TestDeletion:
    @every_kind
    def test_everything_goes_while_it_runs(self, ground: Playground, kind: str) -> None:
        job = ground.submit(kind, runs)
        job.reach("Running")
        job.delete()
        job.wait(lambda: not job.remains, "be gone with all that belongs to it")

    def test_everything_goes_before_it_runs(self, ground: Playground) -> None:
        job = ground.submit("RLJob", never_starts)
        job.wait(lambda: len(job.pods) == 2, "have servers")
        job.delete()
        job.wait(lambda: not job.remains, "be gone with all that belongs to it")

    def test_a_namesake_begins_when_its_predecessors_children_are_gone(self, ground: Playground) -> None:
        old = ground.submit(life=runs)
        old.reach("Running")
        old.delete()
        new = ground.submit(life=works, name=old.ref.name)
        new.finish()
        assert new.attempts == [f"1 {DONE}"]


class TestChildren:
    def test_a_child_that_somebody_deletes_is_lost_and_costs_no_retry(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=works_until(over), run=NO_RETRY)
        job.reach("Running")
        ground.api.delete(main_of(job))
        job.reach("Running", attempt=2)
        over.set()
        job.finish()
        assert job.attempts == ["1 Lost ChildLost", f"2 {DONE}"]

    def test_a_child_that_never_ran_is_made_again(self, ground: Playground) -> None:
        job = ground.submit("UploadJob", never_starts, run=NO_RETRY)
        job.wait(lambda: len(job.pods) == 1, "have a pod")
        ground.lives[job.ref.kind, job.ref.name] = works
        ground.api.delete(main_of(job))
        job.finish()
        assert job.attempts == [f"1 {DONE}"]
        assert job.made == ["Job-upload-1", "Job-upload-1"]


def foreign(name: str) -> dict[str, Json]:
    """Objects of somebody else, by the kind of job that would like their names."""
    meta = {"name": name}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "pytorch", "image": "example.invalid/a:1"}]}}
    replica = {"replicas": 1, "restartPolicy": "Never", "template": template}
    pytorch = {"spec": {"pytorchReplicaSpecs": {"Worker": replica}, "runPolicy": {"suspend": True}}}
    batch = {"spec": {"suspend": True, "template": template}}
    return {
        "FineTuneJob": {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": meta, **pytorch},
        "UploadJob": {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, **batch},
    }


@pytest.mark.parametrize(("kind", "stage"), [("FineTuneJob", "finetune"), ("UploadJob", "upload")])
def test_a_foreign_object_keeps_its_name_until_its_owner_deletes_it(ground: Playground, kind: str, stage: str) -> None:
    name = ground.name()
    taken = f"{name}-{stage}-1"
    theirs = ground.api.create(foreign(taken)[kind], namespace=ground.namespace)
    job = ground.submit(kind, name=name)
    job.reach("Pending", "NameTaken")
    assert job.message.startswith(f"{theirs['kind']}/{taken} exists already and belongs to somebody else; delete it")
    assert job.kstatus == "Failed"
    assert ground.api.get(Ref.of(theirs))["metadata"]["uid"] == theirs["metadata"]["uid"]
    ground.api.delete(Ref.of(theirs))
    job.edit(retries=1)
    job.finish()
    assert job.attempts == [f"1 {DONE}"]


def memory(workload: Json) -> Any:
    """What a pod of a PyTorchJob gets."""
    template = workload["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    return template["spec"]["containers"][0]["resources"]["limits"]["memory"]
