"""T11: jobs, namespaces and children's owners are deleted, at any time; nothing stays, nothing is made twice."""

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Ref
from support.api import Api
from support.api_client import Server
from support.control_plane import Access, fresh_namespace
from support.jobs import job as smallest
from support.operator_process import kubeconfig, operator_process
from support.players import playing
from support.playground import MAIN_KINDS, PlayedJob, Playground, playground
from support.pod_lives import fails, never_starts, runs, works, works_until
from support.stories import DONE, NO_RETRY
from support.waiting import wait_for
from support.witness import witnessing

pytestmark = pytest.mark.timeout(300)

SETTINGS = {"first_backoff": "5s"}
"""Long enough for a deletion between two attempts."""
FULL = fails(ExitCode.STORAGE, "DiskFull", "the disk is full")
NOBODY: Final = {"from": "FineTuneJob/nobody"}
PHASES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("Waiting", "WaitingForArtifact"): {"life": works, "model": NOBODY},
    ("Starting", ""): {"life": never_starts},
    ("Running", ""): {"life": runs},
    ("Pending", "Retrying"): {"life": FULL},
    ("Suspended", ""): {"life": works, "run": {"suspend": True}},
    ("Succeeded", ""): {"life": works},
    ("Failed", "DiskFull"): {"life": FULL, "run": NO_RETRY},
}


def in_each_phase(ground: Playground) -> list[PlayedJob]:
    """Jobs with servers, whose last phases but the one between two attempts stay as they are."""
    jobs = {phase: ground.submit("RLJob", **how) for phase, how in PHASES.items() if phase != ("Pending", "Retrying")}
    for phase, job in jobs.items():
        job.reach(*phase)
    between = ("Pending", "Retrying")
    jobs[between] = ground.submit("RLJob", **PHASES[between])
    jobs[between].reach(*between)
    return [*jobs.values()]


def all_gone(jobs: list[PlayedJob]) -> None:
    for job in jobs:
        job.wait(partial(_is_gone, job), "be gone with all that belongs to it")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_nothing_stays_of_a_job_in_whatever_phase(ground: Playground, policy: str) -> None:
    jobs = in_each_phase(ground)
    made = [job.made for job in jobs]
    assert not any(job.raw["metadata"].get("finalizers") for job in jobs)
    for job in jobs:
        ground.api.delete(job.ref, propagationPolicy=policy)
    all_gone(jobs)
    ground.submit("UploadJob").finish()
    assert [job.made for job in jobs] == made


def test_nothing_stays_of_a_job_that_is_deleted_while_the_operator_is_away(ground: Playground) -> None:
    jobs = in_each_phase(ground)
    made = [job.made for job in jobs]
    ground.operator.kill()
    for job in jobs:
        job.delete()
    ground.revive()
    all_gone(jobs)
    ground.submit("UploadJob").finish()
    assert [job.made for job in jobs] == made


def test_a_namespace_goes_with_everything_in_it(
    control_plane: Access, controllers: None, api: Api, server: Server, tmp_path: Path
) -> None:
    """The operator goes on with the others, and with the namespace when there is one of that name again."""
    doomed_life = threading.Event()
    with (
        fresh_namespace(control_plane, api) as home,
        fresh_namespace(control_plane, api) as doomed,
        playing(server, doomed, works_until(doomed_life)),
        witnessing(server, doomed) as witness,
        operator_process(
            tmp_path / "operator",
            kubeconfig(server.url, server.token, server.authority),
            namespaces=f"{home},{doomed}",
            lease_namespace=home,
        ),
    ):
        for kind in KINDS:
            api.create(smallest(kind), namespace=doomed)
        wait_for(lambda: witness.outcomes()["Running"] == len(KINDS), "the jobs to run")
        namespace = Ref("v1", "Namespace", "", doomed)
        api.delete(namespace)
        wait_for(lambda: api.find(namespace) is None, "the namespace to be gone", seconds=60)
        wait_for(lambda: not witness.present, "everybody to see that nothing is left", seconds=60)
        assert witness.doubles() == []
        doomed_life.set()
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": doomed}})
        api.create(smallest("UploadJob"), namespace=doomed)
        wait_for(lambda: witness.outcomes()["Succeeded"] == 1, "a job in the new namespace to end")


# Children that are no longer ours.


def strip(ground: Playground, job: PlayedJob, *kinds: str) -> Ref:
    """Somebody takes the owner off one of its children."""
    child = Ref.of(next(child for child in job.children if child["kind"] in kinds))
    ground.api.patch(child, {"metadata": {"ownerReferences": None}})
    return child


def test_a_child_at_work_that_has_no_owner_any_more_is_waited_for(ground: Playground) -> None:
    over = threading.Event()
    job = ground.submit(life=works_until(over), run=NO_RETRY)
    job.reach("Running")
    strip(ground, job, *MAIN_KINDS)
    job.reach("Pending", "Stopping")
    assert "should they not, delete what made them" in job.message
    assert job.attempts == ["1 Lost ChildLost"]
    assert job.made == ["PyTorchJob-finetune-1"]
    over.set()
    job.finish()
    assert job.attempts == ["1 Lost ChildLost", f"2 {DONE}"]
    assert job.made == ["PyTorchJob-finetune-1", "PyTorchJob-finetune-2"]


def test_a_child_that_never_ran_and_has_no_owner_any_more_is_in_the_way(ground: Playground) -> None:
    job = ground.submit("UploadJob", never_starts, run=NO_RETRY)
    job.reach("Starting")
    job.wait(lambda: len(job.pods) == 1, "have a pod")
    foreign = strip(ground, job, *MAIN_KINDS)
    job.reach("Pending", "Stopping")
    assert "should they not, delete what made them" in job.message
    assert job.made == ["Job-upload-1"]
    ground.lives[job.ref.kind, job.ref.name] = works
    ground.api.delete(foreign)
    job.finish()
    assert job.attempts == [f"1 {DONE}"]


def test_servers_that_have_no_owner_any_more_keep_nobody_from_the_end(ground: Playground) -> None:
    over = threading.Event()
    job = ground.submit("RLJob", works_until(over), run=NO_RETRY)
    job.reach("Running")
    made = job.made
    strip(ground, job, "StatefulSet")
    over.set()
    job.finish()
    assert job.attempts == [f"1 {DONE}"]
    assert job.made == made


def test_what_nobody_owns_goes_when_no_job_needs_it(control_plane: Access, api: Api, tmp_path: Path) -> None:
    over = threading.Event()
    with playground(control_plane, api, tmp_path, sweep_interval="1s") as ground:
        job = ground.submit("RLJob", works_until(over), run=NO_RETRY)
        job.reach("Running")
        servers = strip(ground, job, "StatefulSet")
        over.set()
        job.finish()
        job.wait(lambda: api.find(servers) is None, "lose its servers")


def _is_gone(job: PlayedJob) -> bool:
    return not job.remains
