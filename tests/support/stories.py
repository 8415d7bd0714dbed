"""What can happen to a job while it runs, and what must come of it: each is told with and without disturbances."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Role
from support.api_client import unless
from support.kubelet import GONE, Life, PlayedPod
from support.playground import PlayedJob, Playground
from support.pod_lives import ends, fails, held, is_evicted, loses_its_node, out_of_memory, runs, works
from support.scene import SUCCESS

DONE: Final = "Succeeded 0 Succeeded"
RESUMED: Final = SUCCESS.model_copy(update={"resumed_from": "checkpoint-400"})


@dataclass(frozen=True)
class Story:
    """A job that runs, and then something happens to it."""

    kind: str
    life: Life
    attempts: tuple[str, ...] = (f"1 {DONE}",)
    """Patterns of what is on record in the end, see ``PlayedJob.attempts``; more than one thing may be seen first."""
    phase: str = "Succeeded"
    reason: str = "Succeeded"
    message: str = ""
    """A pattern of the last attempt's message."""
    run: Json = field(default_factory=dict)

    def check(self, job: PlayedJob) -> None:
        """It comes to its end, with nothing made twice and nothing left that costs anything."""
        job.finish(self.phase, self.reason)
        assert len(job.attempts) == len(self.attempts), job.attempts
        for told, wanted in zip(job.attempts, self.attempts, strict=True):
            assert re.fullmatch(wanted, told), job.attempts
        told = job.status.attempts[-1].message or ""
        assert re.search(self.message, told), told
        assert job.made == [made for number in _numbers(job) for made in _workloads(self.kind, number)]
        wait_free(job)


def costs(job: PlayedJob) -> list[str]:
    """Its pods that have not ended, and what keeps rollout servers."""
    alive = [pod for pod in job.pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    kept = [child for child in job.children if child["kind"] in ("StatefulSet", "Service")]
    return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in (*alive, *kept)]


def wait_free(job: PlayedJob) -> None:
    """Returns once nothing is left that costs anything."""
    job.wait(lambda: not costs(job), "leave nothing that costs anything")


def tell(
    ground: Playground, stories: Mapping[str, Story], gates: Mapping[int, threading.Event]
) -> dict[str, PlayedJob]:
    """Submits a job for each story; the pods of an attempt do nothing but run before its gate is open."""
    return {
        name: ground.submit(story.kind, _gated(gates, story.life), run=story.run) for name, story in stories.items()
    }


def has_happened(job: PlayedJob) -> bool:
    """Whether the present attempt has ended, or a pod of it was started again."""
    containers = [status for pod in job.pods for status in pod.get("status", {}).get("containerStatuses", [])]
    return job.main_ended or any("terminated" in status.get("lastState", {}) for status in containers)


def all_running(jobs: Iterable[PlayedJob], attempt: int) -> None:
    """Returns once every job that has not ended is at work in this attempt."""
    for job in jobs:
        job.wait(partial(_runs_or_has_ended, job, attempt), f"run in attempt {attempt}, or end")


def _runs_or_has_ended(job: PlayedJob, attempt: int) -> bool:
    return job.status.finished or (job.status.phase == "Running" and len(job.status.attempts) == attempt)


def _gated(gates: Mapping[int, threading.Event], life: Life) -> Life:
    async def gated(pod: PlayedPod) -> None:
        gate = gates.get(pod.attempt)
        await (life if gate is None else held(gate, life))(pod)

    return gated


def _numbers(job: PlayedJob) -> range:
    return range(1, len(job.status.attempts) + 1)


def _workloads(kind: str, attempt: int) -> list[str]:
    """The workloads of an attempt in the order in which they are made, as in ``PlayedJob.made``."""
    return {
        "FilterJob": [f"Job-filter-{attempt}"],
        "FineTuneJob": [f"PyTorchJob-finetune-{attempt}"],
        "RLJob": [f"StatefulSet-serve-{attempt}", f"PyTorchJob-rl-{attempt}"],
        "UploadJob": [f"Job-upload-{attempt}"],
    }[kind]


# What befalls pods.


def first(life: Life, *, whom: Callable[[PlayedPod], bool] = lambda pod: pod.leads, then: Life = works) -> Life:
    """One pod of the first attempt lives like that while the others run; later attempts just work."""

    async def lives(pod: PlayedPod) -> None:
        if pod.attempt > 1:
            await then(pod)
        else:
            await (life if whom(pod) else runs)(pod)

    return lives


def _is_first_server(pod: PlayedPod) -> bool:
    return pod.role == Role.SERVERS and pod.name.endswith("-0")


def _follows(pod: PlayedPod) -> bool:
    return "-worker-" in pod.name and not pod.leads


async def _is_deleted(pod: PlayedPod) -> None:
    """Somebody deletes it."""
    await unless(GONE, pod.api.delete(pod.path))


async def _is_preempted(pod: PlayedPod) -> None:
    """The scheduler needs its place for another."""
    told = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
    await pod.tell(conditions=[told])
    await _is_deleted(pod)


async def _restarts_out_of_memory(pod: PlayedPod) -> None:
    """Its container is killed at its memory limit, and started again, as of all rollout servers."""
    await pod.start()
    await pod.restart(ExitCode.KILLED, reason="OOMKilled")


async def _fills_its_memory_disk(pod: PlayedPod) -> None:
    """The kubelet evicts it for what it used itself."""
    message = 'Usage of EmptyDir volume "shm" exceeds the limit "1Gi".'
    await pod.tell(phase="Failed", reason="Evicted", message=message)


async def _resumes(pod: PlayedPod) -> None:
    """Goes on from a checkpoint, and works."""
    await (ends(ExitCode.DONE, RESUMED) if pod.leads else works)(pod)


_FULL: Final = fails(ExitCode.STORAGE, "DiskFull", "the disk is full")
_STOPPED: Final = fails(ExitCode.PREEMPTED, "Stopped", "SIGTERM")
NO_RETRY: Final[Json] = {"retries": 0}
GOES_ON: Final = f"2 {DONE}"

STORIES: Final[Mapping[str, Story]] = {
    "a FilterJob succeeds": Story("FilterJob", works),
    "a FineTuneJob succeeds": Story("FineTuneJob", works),
    "an RLJob succeeds": Story("RLJob", works),
    "an UploadJob succeeds": Story("UploadJob", works),
    "bad data is bad at every try": Story(
        "FineTuneJob",
        first(fails(ExitCode.DATA, "MissingColumn", "there is no column answer")),
        ("1 Failed 64 MissingColumn",),
        "Failed",
        "MissingColumn",
        "there is no column answer",
    ),
    "the pod that failed first says why": Story(
        "FineTuneJob",
        first(fails(ExitCode.MODEL, "NoTokenizer", "there is no tokenizer"), whom=_follows),
        ("1 Failed 65 NoTokenizer",),
        "Failed",
        "NoTokenizer",
        "there is no tokenizer",
    ),
    "a gang starts again whole from its checkpoint": Story(
        "FineTuneJob", first(_FULL, then=_resumes), ("1 Failed 147 DiskFull", GOES_ON)
    ),
    "an upload is tried again": Story(
        "UploadJob",
        first(fails(ExitCode.UNREACHABLE, "HubUnreachable", "no answer")),
        ("1 Failed 148 HubUnreachable", GOES_ON),
    ),
    "a trainer that lost its servers gets new ones": Story(
        "RLJob",
        first(fails(ExitCode.SERVER_LOST, "ServerLost", "no answer")),
        ("1 Failed 146 ServerLost", GOES_ON),
    ),
    "retries are used up": Story(
        "FilterJob",
        _FULL,
        ("1 Failed 147 DiskFull", "2 Failed 147 DiskFull"),
        "Failed",
        "DiskFull",
        "the disk is full",
        {"retries": 1},
    ),
    "a stop costs no retry": Story("FineTuneJob", first(_STOPPED), ("1 Preempted 143 Stopped", GOES_ON), run=NO_RETRY),
    "a preemption costs no retry": Story(
        "FineTuneJob",
        first(_is_preempted),
        ("1 (Preempted (Preempted|143 Stopped)|Lost ChildLost)", GOES_ON),
        run=NO_RETRY,
    ),
    "an eviction costs no retry": Story(
        "FineTuneJob", first(is_evicted), ("1 Preempted Preempted", GOES_ON), run=NO_RETRY
    ),
    "an eviction of one pod of many costs no retry": Story(
        "FilterJob", first(is_evicted), ("1 Preempted Preempted", GOES_ON), run=NO_RETRY
    ),
    "a lost node costs no retry": Story(
        "FineTuneJob",
        first(loses_its_node),
        ("1 (Preempted|Lost) .+", GOES_ON),
        run=NO_RETRY,
    ),
    "a pod that somebody deletes costs no retry": Story(
        "FineTuneJob",
        first(_is_deleted, whom=_follows),
        # Or it has stopped, or it is gone and so is all that could tell of it, before anybody looks.
        ("1 (Preempted (PodReplaced|143 Stopped)|Lost ChildLost)", GOES_ON),
        run=NO_RETRY,
    ),
    "a trainer needs too much memory": Story(
        "FineTuneJob",
        first(out_of_memory),
        ("1 Failed 137 OutOfMemory",),
        "Failed",
        "OutOfMemory",
        "-worker-0 was killed at its memory limit; raise run.resources.memory or lower the batch size",
    ),
    "a server needs too much memory": Story(
        "RLJob",
        first(_restarts_out_of_memory, whom=_is_first_server),
        ("1 Failed 137 OutOfMemory",),
        "Failed",
        "OutOfMemory",
        "-serve-1-0 was killed at its memory limit; raise run.resources.memory, or lower rollout.cacheMemoryMi",
    ),
    "a stage needs too much of /dev/shm": Story(
        "FineTuneJob",
        first(_fills_its_memory_disk),
        ("1 Failed OutOfMemory",),
        "Failed",
        "OutOfMemory",
        "raise run.resources.shm",
    ),
    "a program ends without a word": Story(
        "UploadJob",
        first(ends(1)),
        ("1 Failed 1 NoResult",),
        "Failed",
        "NoResult",
        "ended with status 1 and told no reason; look at its log",
    ),
}
