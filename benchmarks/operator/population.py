"""Jobs that are brought to work, or through their whole lives; what a cluster without nodes lacks is played."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from benchmarks.operator.ground import TEAM, Ground
from benchmarks.operator.lives import PlayedJob, pytorchjobs
from benchmarks.operator.load import at_once, burst, finetunejob, finetunejobs, fresh_names
from benchmarks.operator.readings import object_requests
from benchmarks.operator.subject import Subject

PLAYED: Final = frozenset(
    {"POST finetunejobs", "LIST pytorchjobs", "POST pods", "PATCH pods/status", "PATCH pytorchjobs/status"}
)
"""What the benchmark itself requests while it plays whole lives."""


async def submit(ground: Ground, names: Sequence[str], *, namespace: str = TEAM) -> list[PlayedJob]:
    """Creates FineTuneJobs, and returns their PyTorchJobs once all of these exist."""
    await burst(names, lambda name: ground.client.create(finetunejobs(namespace), finetunejob(name)))
    while True:
        began = time.perf_counter()
        found = [PlayedJob(ground.client, job) async for job in pytorchjobs(ground.client, namespace)]
        if len(made := [job for job in found if job.name in set(names)]) == len(names):
            return made
        await asyncio.sleep(5 * (time.perf_counter() - began))  # lest the API server is busy with these lists


async def populate(ground: Ground, operator: Subject, size: int) -> None:
    """Makes jobs until so many are at work, and the operator has said so of each."""
    missing = size - operator.page().jobs("Running")
    await at_once(await submit(ground, fresh_names(missing)), PlayedJob.live)
    await operator.has(size, "Running")


async def finish(ground: Ground, operator: Subject, number: int) -> None:
    """Brings so many more jobs to success."""
    succeeded = operator.page().jobs("Succeeded") + number
    jobs = await submit(ground, fresh_names(number))
    for step in (PlayedJob.live, PlayedJob.end_pod, PlayedJob.report_succeeded):
        await at_once(jobs, step)
    await operator.has(succeeded, "Succeeded")


async def whole_lives(ground: Ground, operator: Subject, number: int) -> Counter[str]:
    """Plays every step of some lives, and lets the operator see each; its requests, by verb and resource.

    No other job may be at work or have succeeded.
    """
    await operator.quiet()
    before = object_requests(ground.server)
    jobs = await submit(ground, fresh_names(number))
    for steps, phase in (
        ((PlayedJob.report_created, PlayedJob.create_pod, PlayedJob.pull, PlayedJob.start_pod), "Starting"),
        ((PlayedJob.report_running,), "Running"),
        ((PlayedJob.end_pod, PlayedJob.report_succeeded), "Succeeded"),
    ):
        for step in steps:
            await at_once(jobs, step)
            await operator.quiet()
        await operator.has(number, phase)
    requests = object_requests(ground.server)
    requests.subtract(before)
    return Counter({request: count for request, count in requests.items() if count and request not in PLAYED})
