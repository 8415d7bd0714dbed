"""The operator is killed in the middle of every life; what happens while it is down is caught up with."""

import threading
from functools import partial

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Ref
from support.playground import MAIN_KINDS, PlayedJob, Playground
from support.pod_lives import fails, never_starts, runs, works_until
from support.stories import DONE, NO_RETRY, STORIES, all_running, has_happened, tell, wait_free

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def jobs(_ground: Playground) -> dict[str, PlayedJob]:
    """A job for each story; the operator is down whenever something happens to an attempt."""
    gates = {1: threading.Event(), 2: threading.Event()}
    jobs = tell(_ground, STORIES, gates)
    for attempt, gate in gates.items():
        all_running(jobs.values(), attempt)
        at_work = [job for job in jobs.values() if not job.status.finished]
        _ground.operator.kill()
        gate.set()
        for job in at_work:
            job.wait(partial(has_happened, job), f"come to something in attempt {attempt}")
        _ground.revive()
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_a_job_comes_to_the_same_end(ground: Playground, jobs: dict[str, PlayedJob], story: str) -> None:
    STORIES[story].check(jobs[story])


def test_what_people_do_meanwhile_is_noticed(ground: Playground) -> None:
    over = threading.Event()
    deleted, stopped, late = (ground.submit(kind, runs) for kind in ("RLJob", "FineTuneJob", "FilterJob"))
    robbed, continued = (ground.submit(life=works_until(over), run=NO_RETRY) for _ in range(2))
    unstarted = ground.submit("UploadJob", never_starts)
    ended = ground.submit("UploadJob", fails(ExitCode.REFUSED), run=NO_RETRY)
    for job in (deleted, stopped, late, robbed, continued):
        job.reach("Running")
    continued.edit(suspend=True)
    continued.wait(lambda: continued.attempts == ["1 Suspended Suspended"], "be stopped")
    unstarted.reach("Starting")
    ended.finish("Failed", "Broken")
    ground.operator.kill()

    deleted.delete()
    deleted.wait(lambda: not deleted.remains, "be gone with all its children")
    stopped.edit(suspend=True)
    continued.edit(suspend=False)
    late.edit(deadline="1s")
    unstarted.edit(pendingDeadline="1s")
    ended.edit(ttlAfterFinished="1s")
    ground.api.delete(Ref.of(next(child for child in robbed.children if child["kind"] in MAIN_KINDS)))
    born = ground.submit("UploadJob")
    over.set()
    ground.revive()

    born.finish()
    stopped.reach("Suspended")
    continued.finish()
    late.finish("Failed", "DeadlineExceeded")
    unstarted.finish("Failed", "PendingDeadlineExceeded")
    robbed.finish()
    ended.wait(lambda: not ended.children, "lose its children")
    assert robbed.attempts == ["1 Lost ChildLost", f"2 {DONE}"]
    assert continued.attempts == ["1 Suspended Suspended", f"2 {DONE}"]
    for job in (stopped, late, unstarted):
        wait_free(job)
    assert deleted.remains == []


def test_an_upstream_that_succeeds_meanwhile_is_noticed(ground: Playground) -> None:
    """Its end is seen by an operator that never saw it run, and so are its readers."""
    over = threading.Event()
    upstream = ground.submit(life=works_until(over))
    reader = ground.submit("UploadJob", source={"from": str(upstream.ref)})
    reader.reach("Waiting", "WaitingForArtifact")
    upstream.reach("Running")
    ground.operator.kill()
    over.set()
    upstream.wait(lambda: upstream.main_ended, "come to its end")
    ground.revive()
    reader.finish()


def test_a_job_that_has_ended_never_runs_again(ground: Playground) -> None:
    """Not even when none of its children is left, and the operator knows nothing."""
    job = ground.submit("RLJob", run={"ttlAfterFinished": "1s"})
    job.finish()
    job.wait(lambda: not job.children and not job.pods, "lose its children")
    version, made = job.raw["metadata"]["resourceVersion"], job.made
    ground.restart()
    job.edit(retries=7)
    job.wait(lambda: job.status.observed_generation == 2, "be looked at")
    ground.submit("UploadJob").finish()
    assert job.state == ("Succeeded", "Succeeded")
    assert (job.made, job.children) == (made, [])
    assert job.raw["metadata"]["resourceVersion"] != version


def test_a_new_operator_writes_nothing_where_nothing_has_changed(ground: Playground) -> None:
    running = ground.submit("RLJob", runs)
    running.reach("Running")
    ground.submit("FilterJob").finish()
    before = versions(ground)
    ground.restart()
    ground.submit("UploadJob").finish()
    after = versions(ground)
    assert {uid: after.get(uid) for uid in before} == before


def versions(ground: Playground) -> dict[str, str]:
    """The resource version of every job and every child, by uid."""
    objects = [obj for obj in [*ground.chronicle.present.values()] if obj["kind"] != "Pod"]
    return {obj["metadata"]["uid"]: obj["metadata"]["resourceVersion"] for obj in objects}
