"""What jobs wait for, and for how long: nodes, images, deadlines, and other jobs."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Json
from support.playground import PlayedJob, Playground
from support.pod_lives import (
    at_attempt,
    cannot_be_pulled,
    does_not_fit,
    fails,
    held,
    misses_a_secret,
    never_starts,
    runs,
    then,
    works,
    works_until,
)
from support.stories import NO_RETRY, wait_free
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

most_kinds = pytest.mark.parametrize(
    "kind", ["FilterJob", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("FineTuneJob", "RLJob"))]
)

SOON = 25
"""Seconds within which events bring news; whoever polls looks every 30."""
BROKEN = fails(ExitCode.DATA, "MissingColumn", "there is no column answer")
UNREACHABLE = fails(ExitCode.UNREACHABLE, "HubUnreachable", "no answer")


def reads(upstream: PlayedJob | str) -> Json:
    """An input from another job's artifact."""
    return {"from": upstream if isinstance(upstream, str) else str(upstream.ref)}


OBSTACLES = {
    "ImagePullFailed": (cannot_be_pulled, "cannot be pulled: Back-off pulling image", "check run.image"),
    "Unschedulable": (does_not_fit, "cannot be scheduled: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu", ""),
    "ContainerConfigError": (misses_a_secret, 'needs what is not there: secret "hub-token" not found', "create it"),
}


@pytest.mark.parametrize("kind", [pytest.param("FineTuneJob", marks=pytest.mark.slow), "RLJob"])
@pytest.mark.parametrize("reason", OBSTACLES)
def test_what_keeps_pods_from_starting_is_told_until_it_is_over(ground: Playground, kind: str, reason: str) -> None:
    life, *words = OBSTACLES[reason]
    over = threading.Event()
    job = ground.submit(kind, then(life, over, works), run=NO_RETRY)
    job.reach("Starting", reason)
    assert all(word in job.message for word in words), job.message
    assert job.kstatus == "InProgress"
    over.set()
    job.finish()
    assert len(job.attempts) == 1


class TestPendingDeadline:
    @most_kinds
    def test_a_job_that_never_starts_is_given_up(self, ground: Playground, kind: str) -> None:
        job = ground.submit(kind, never_starts, run={"pendingDeadline": "1s"})
        job.finish("Failed", "PendingDeadlineExceeded")
        assert job.attempts == ["1 Failed PendingDeadlineExceeded"]
        assert job.message.startswith("no attempt ran within run.pendingDeadline (1s); at last Starting: ")
        wait_free(job)

    def test_the_last_word_says_what_it_waited_for(self, ground: Playground) -> None:
        job = ground.submit(life=cannot_be_pulled)
        job.reach("Starting", "ImagePullFailed")
        job.edit(pendingDeadline="1s")
        job.finish("Failed", "PendingDeadlineExceeded")
        assert "; at last ImagePullFailed: image " in job.message

    def test_it_does_not_count_for_a_job_that_ran(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=works_until(over))
        job.reach("Running")
        job.edit(pendingDeadline="1s")
        job.wait(lambda: job.status.observed_generation == 2, "be looked at")
        wait_until_it_is(job, age=timedelta(seconds=2))
        over.set()
        job.finish()


class TestDeadline:
    @most_kinds
    def test_a_job_that_takes_too_long_is_ended(self, ground: Playground, kind: str) -> None:
        job = ground.submit(kind, runs)
        job.reach("Running")
        job.edit(deadline="1s")
        job.finish("Failed", "DeadlineExceeded")
        assert job.attempts == ["1 Failed DeadlineExceeded"]
        assert job.message == "not finished after run.deadline (1s)"
        wait_free(job)

    def test_it_holds_for_all_attempts_together(self, ground: Playground) -> None:
        job = ground.submit(life=at_attempt({1: fails(ExitCode.STORAGE), 2: runs}))
        job.reach("Running", attempt=2)
        first, second = job.status.attempts
        job.edit(deadline=f"{(second.start_time - first.start_time).seconds}s")
        job.finish("Failed", "DeadlineExceeded")
        assert job.attempts == ["1 Failed 147 Broken", "2 Failed DeadlineExceeded"]

    def test_it_ends_the_pause_between_attempts(self, ground: Playground) -> None:
        job = ground.submit(life=fails(ExitCode.STORAGE), run={"retries": 100, "deadline": "2s"})
        job.finish("Failed", "DeadlineExceeded")
        assert all("Failed" in attempt for attempt in job.attempts)


def wait_until_it_is(job: PlayedJob, *, age: timedelta) -> None:
    """Returns once the first attempt began so long ago."""
    start = job.status.attempts[0].start_time
    wait_for(lambda: datetime.now(UTC) - start > age, f"{job.ref} to be {age} old")


class TestUpstream:
    def test_a_reader_waits_and_is_woken(self, ground: Playground) -> None:
        over = threading.Event()
        upstream = ground.submit("FineTuneJob", works_until(over))
        reader = ground.submit("UploadJob", source=reads(upstream))
        reader.wait(lambda: reader.message == f"{upstream.ref} is Running", "hear of its upstream", seconds=SOON)
        assert reader.state == ("Waiting", "WaitingForArtifact")
        assert reader.kstatus == "InProgress"
        assert reader.made == []
        over.set()
        upstream.finish()
        reader.finish(seconds=SOON)
        artifact = upstream.status.artifact
        assert artifact is not None
        assert (reader.status.inputs["source"].uri, reader.status.inputs["source"].digest) == (
            artifact.uri,
            artifact.digest,
        )

    def test_a_pipeline_may_be_applied_from_its_end(self, ground: Playground) -> None:
        clean, tuned, better = (ground.name() for _ in range(3))
        upload = ground.submit("UploadJob", source=reads(f"RLJob/{better}"))
        upload.reach("Waiting", "WaitingForArtifact")
        assert upload.message == f"RLJob/{better} does not exist; apply it, or correct spec.source.from"
        ground.submit("RLJob", name=better, model=reads(f"FineTuneJob/{tuned}"))
        ground.submit("FineTuneJob", name=tuned, dataset=reads(f"FilterJob/{clean}"))
        ground.submit("FilterJob", name=clean)
        upload.finish()

    def test_a_failed_upstream_stalls_its_reader_until_it_is_replaced(self, ground: Playground) -> None:
        upstream = ground.submit("FineTuneJob", BROKEN)
        reader = ground.submit("UploadJob", source=reads(upstream))
        reader.reach("Waiting", "InputFailed", seconds=SOON)
        assert reader.message == f"{upstream.ref} failed: there is no column answer"
        assert reader.kstatus == "Failed"
        assert not reader.status.finished
        upstream.delete()
        reader.reach("Waiting", "WaitingForArtifact", seconds=SOON)
        ground.submit("FineTuneJob", works, name=upstream.ref.name)
        reader.finish()

    @pytest.mark.slow
    def test_a_reader_goes_on_with_what_it_began_with(self, ground: Playground) -> None:
        over = threading.Event()
        upstream = ground.submit("FineTuneJob")
        reader = ground.submit("UploadJob", held(over, at_attempt({1: UNREACHABLE})), source=reads(upstream))
        reader.reach("Running")
        begun = reader.status.inputs
        upstream.delete()
        ground.submit("FineTuneJob", BROKEN, name=upstream.ref.name).finish("Failed", "MissingColumn")
        over.set()
        reader.finish()
        assert reader.attempts == ["1 Failed 148 HubUnreachable", "2 Succeeded 0 Succeeded"]
        assert reader.status.inputs == begun

    def test_jobs_that_read_from_each_other_say_so(self, ground: Playground) -> None:
        one, other = ground.name(), ground.name()
        first = ground.submit("FineTuneJob", name=one, model=reads(f"FineTuneJob/{other}"))
        second = ground.submit("FineTuneJob", name=other, model=reads(f"FineTuneJob/{one}"))
        for job in (first, second):
            job.reach("Failed", "InvalidSpec", seconds=SOON)
            assert "reads from itself" in job.message
            assert not job.status.finished
        second.delete()
        ground.submit("FineTuneJob", name=other)
        first.finish()
