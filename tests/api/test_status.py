"""What a job says of itself while it lives: conditions, progress, cost, result, and what people are told of it."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import Progress
from posttrain_operator.cluster import Json
from support.api import Kubectl, table
from support.kubelet import Life, PlayedPod
from support.playground import PlayedJob, Playground
from support.pod_lives import at_attempt, fails, held, in_turn, works_until
from support.scene import ARTIFACT, SUCCESS
from support.stage_endpoint import StageEndpoint, stage_endpoint
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

SETTINGS: Final = {"progress_interval": "1s"}
HALF: Final = Progress(
    phase="training",
    step=410,
    total_steps=1000,
    eta_seconds=3600.4,
    metrics={"loss": 0.8301, "tokensPerSecond": 51000},
    updated_at=1_790_000_000.7,
)
NO_RETRY: Final[Json] = {"retries": 0}
BAD_DATA: Final = fails(ExitCode.DATA, "MissingColumn", "there is no column answer")
FULL: Final = fails(ExitCode.STORAGE, "DiskFull", "the disk is full")


def was_looked_at(job: PlayedJob) -> bool:
    """Whether the operator has seen its present generation."""
    return bool(job.status.observed_generation == job.raw["metadata"]["generation"])


def holding(job: PlayedJob) -> set[str]:
    """The types of the conditions that hold."""
    return {condition.type for condition in job.status.conditions if condition.status == "True"}


class TestConditions:
    def test_they_follow_a_job_to_its_success(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=works_until(over))
        job.reach("Running")
        assert holding(job) == {"Reconciling", "Running"}
        assert job.kstatus == "InProgress"
        over.set()
        job.finish()
        assert holding(job) == {"Ready", "Succeeded"}
        assert job.kstatus == "Current"

    def test_they_follow_a_job_to_its_failure(self, ground: Playground) -> None:
        job = ground.submit("UploadJob", BAD_DATA, run=NO_RETRY)
        job.finish("Failed", "MissingColumn")
        assert holding(job) == {"Stalled", "Failed"}
        assert job.kstatus == "Failed"
        assert job.message == "there is no column answer"

    def test_each_says_of_which_generation_it_speaks(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=works_until(over))
        job.reach("Running")
        told = {condition.type: condition.last_transition_time for condition in job.status.conditions}
        job.edit(retries=5)
        job.wait(lambda: job.status.observed_generation == 2, "be looked at")
        assert {condition.observed_generation for condition in job.status.conditions} == {2}
        assert {condition.type: condition.last_transition_time for condition in job.status.conditions} == told
        over.set()
        job.finish()


def tells_of_progress(endpoint: StageEndpoint, over: threading.Event) -> Life:
    """The leading pod has an endpoint, the others none."""

    async def life(pod: PlayedPod) -> None:
        await pod.start()
        if pod.leads:
            await pod.tell(podIP=endpoint.ip, podIPs=[{"ip": endpoint.ip}])
        await works_until(over)(pod)

    return life


class TestProgress:
    def test_it_is_pulled_from_the_stage_while_that_runs(self, ground: Playground) -> None:
        over = threading.Event()
        with stage_endpoint(HALF) as stage:
            job = ground.submit(life=tells_of_progress(stage, over))
            job.wait(lambda: job.status.progress is not None, "tell of progress")
            assert job.raw["status"]["progress"] == {
                "phase": "training",
                "percent": 41,
                "step": 410,
                "totalSteps": 1000,
                "etaSeconds": 3600,
                "headline": "loss 0.830",
                "metrics": {"loss": 0.8301, "tokensPerSecond": 51000},
                "updatedAt": datetime.fromtimestamp(1_790_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            stage.progress = HALF.model_copy(update={"step": 900})
            job.wait(lambda: job.raw["status"]["progress"]["percent"] == 90, "be at 90 %")
            over.set()
            job.finish()
        progress = job.raw["status"]["progress"]
        assert (progress["percent"], progress["etaSeconds"]) == (100, 0)

    def test_nothing_is_written_while_nothing_is_new(self, ground: Playground) -> None:
        over = threading.Event()
        with stage_endpoint(HALF) as stage:
            job = ground.submit(life=tells_of_progress(stage, over))
            job.wait(lambda: job.status.progress is not None and job.state[0] == "Running", "tell of progress")
            version, asked = job.raw["metadata"]["resourceVersion"], stage.asked
            wait_for(lambda: stage.asked >= asked + 3, "the stage to be asked again")
            assert job.raw["metadata"]["resourceVersion"] == version
            over.set()
            job.finish()

    def test_a_stage_that_does_not_answer_holds_nobody_up(self, ground: Playground) -> None:
        """Its address is one where nobody listens."""
        over = threading.Event()
        job = ground.submit(life=tells_of_progress(StageEndpoint("127.0.77.77", HALF), over))
        job.reach("Running")
        over.set()
        job.finish()
        assert job.status.progress is None


class TestResult:
    def test_it_is_what_the_stage_told(self, ground: Playground) -> None:
        job = ground.submit()
        job.finish()
        assert job.status.artifact == ARTIFACT
        assert job.status.metrics == SUCCESS.metrics
        assert job.status.start_time is not None
        assert job.status.completion_time is not None

    def test_it_costs_gpus_times_seconds(self, ground: Playground) -> None:
        """Of both attempts, and of both pods of each."""
        full, over = threading.Event(), threading.Event()
        job = ground.submit(life=in_turn(held(full, FULL), works_until(over)), run={"resources": {"gpus": 1}})
        job.reach("Running")
        begun = job.status.attempts[0].running_time
        assert begun is not None
        wait_for(lambda: datetime.now(UTC) - begun > timedelta(seconds=2), "two seconds of work")
        full.set()
        job.reach("Running", attempt=2)
        over.set()
        job.finish()
        spent = [
            (a.end_time - a.running_time).seconds * 2 for a in job.status.attempts if a.end_time and a.running_time
        ]
        assert spent[0] >= 4
        assert job.status.gpu_seconds == sum(spent)
        assert [attempt.gpus for attempt in job.status.attempts] == [2, 2]


class TestKubectl:
    def test_get_shows_how_it_goes(self, ground: Playground, kubectl: Kubectl) -> None:
        over = threading.Event()
        with stage_endpoint(HALF) as stage:
            job = ground.submit(life=tells_of_progress(stage, over))
            job.wait(lambda: job.status.progress is not None and job.state[0] == "Running", "tell of progress")
            row = shown(kubectl, job)
            assert (row["PHASE"], row["PROGRESS"], row["ETA"], row["METRIC"], row["REASON"]) == (
                "Running",
                "41",
                "3600",
                "loss 0.830",
                "Running",
            )
            over.set()
            job.finish()
        row = shown(kubectl, job, "--output=wide")
        assert (row["PHASE"], row["PROGRESS"], row["ETA"], row["REASON"]) == ("Succeeded", "100", "0", "Succeeded")
        assert (row["ATTEMPTS"], row["ARTIFACT"]) == ("1", ARTIFACT.uri)

    @pytest.mark.parametrize(
        ("condition", "then"),
        [pytest.param("Succeeded", None, marks=pytest.mark.slow), ("Failed", BAD_DATA)],
        ids=["Succeeded", "Failed"],
    )
    def test_wait_returns_at_the_end(
        self, ground: Playground, kubectl: Kubectl, condition: str, then: Life | None
    ) -> None:
        over = threading.Event()
        job = ground.submit("UploadJob", held(over, then) if then else works_until(over))
        job.reach("Running")
        with waiting(kubectl, job, condition) as wait:
            over.set()
            said, _ = wait.communicate(timeout=60)
        assert (wait.returncode, said) == (0, f"uploadjob.posttrain.dev/{job.ref.name} condition met\n")

    def test_describe_shows_the_events(self, ground: Playground, kubectl: Kubectl) -> None:
        job = ground.submit("UploadJob", BAD_DATA, run=NO_RETRY)
        job.finish("Failed", "MissingColumn")
        wait_for(lambda: "MissingColumn" in told(job), "the event of the failure")
        said = kubectl("describe", "ulj", job.ref.name, "--namespace", job.ref.namespace)
        assert re.search(r"Events:\n +Type .*", said)
        assert re.search(r"Warning +MissingColumn +\S+ +posttrain-operator +there is no column answer", said)


def shown(kubectl: Kubectl, job: PlayedJob, *more: str) -> dict[str, str]:
    """The row of a job that kubectl prints."""
    (row,) = table(kubectl("get", job.ref.kind, job.ref.name, "--namespace", job.ref.namespace, *more))
    return row


@contextmanager
def waiting(kubectl: Kubectl, job: PlayedJob, condition: str) -> Iterator[subprocess.Popen[str]]:
    """``kubectl wait``, which has begun to watch."""
    what = (f"{job.ref.kind}/{job.ref.name}", "--namespace", job.ref.namespace)
    command = kubectl.command("wait", f"--for=condition={condition}", *what, "--timeout=60s", "-v=6")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as wait:
        assert wait.stderr is not None
        assert any("watch=true" in line for line in wait.stderr), "kubectl did not begin to watch"
        assert wait.poll() is None
        yield wait


def told(job: PlayedJob) -> list[str]:
    """The reasons of the events of a job, in order."""
    return [event["reason"] for event in job.events()]


class TestEvents:
    def test_each_transition_is_told_once(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit(life=held(over, at_attempt({1: FULL})), run={"retries": 1})
        job.reach("Running")
        over.set()
        job.finish()
        wait_for(lambda: "Succeeded" in told(job), "the last event")
        events = job.events()
        kinds = [(event["type"], event["reason"]) for event in events if event["reason"] != "Running"]
        assert kinds == [("Warning", "Retrying"), ("Normal", "Succeeded")]
        assert told(job)[0] == "Running"
        assert told(job).count("Running") <= len(job.attempts)
        assert {event["count"] for event in events} == {1}
        assert events[0]["message"] == "attempt 1 is at work"
        (retrying,) = [event for event in events if event["reason"] == "Retrying"]
        assert retrying["message"] == "attempt 1 ended: DiskFull: the disk is full"
        assert retrying["involvedObject"] == {
            "apiVersion": job.ref.api_version,
            "kind": job.ref.kind,
            "name": job.ref.name,
            "namespace": job.ref.namespace,
            "uid": job.uid,
        }

    @pytest.mark.slow
    def test_a_suspension_and_a_resumption_are_told(self, ground: Playground) -> None:
        over = threading.Event()
        job = ground.submit("UploadJob", works_until(over))
        job.reach("Running")
        job.edit(suspend=True)
        job.wait(lambda: job.attempts == ["1 Suspended Suspended"], "be stopped")
        job.edit(suspend=False)
        job.reach("Running", attempt=2)
        over.set()
        job.finish()
        wait_for(lambda: "Succeeded" in told(job), "the last event")
        assert told(job) == ["Running", "Suspended", "Running", "Succeeded"]

    @pytest.mark.slow
    def test_a_new_operator_tells_nothing_again(self, ground: Playground) -> None:
        over = threading.Event()
        running = ground.submit("UploadJob", works_until(over))
        failed = ground.submit("FilterJob", BAD_DATA, run=NO_RETRY)
        running.reach("Running")
        failed.finish("Failed", "MissingColumn")
        wait_for(lambda: "MissingColumn" in told(failed), "the event of the failure")
        before = [event["metadata"]["uid"] for job in (running, failed) for event in job.events()]
        ground.restart()
        for job in (running, failed):
            job.edit(retries=7)
            job.wait(partial(was_looked_at, job), "be looked at")
        assert [event["metadata"]["uid"] for job in (running, failed) for event in job.events()] == before
        over.set()
        running.finish()
