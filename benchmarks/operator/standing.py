"""Jobs that are there: memory, a restart, a resync, and progress."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from support.api_client import Json

from benchmarks.operator.ground import OTHER_TEAM, TEAM, Ground
from benchmarks.operator.lives import progress_endpoints
from benchmarks.operator.load import BenchmarkError, at_once, finetunejob, finetunejobs, fresh_names, running, until
from benchmarks.operator.population import finish, populate, submit
from benchmarks.operator.readings import megabytes, object_requests, writes
from benchmarks.operator.subject import operating

_SOME: Final = 20
_SLACK: Final = 0.5
"""Seconds by which a write may be seen late."""
_SWEEPS: Final = "2s"
_RESYNC_SECONDS: Final = 12.0
"""Seconds in which every fifth sweep, and so a resync, comes at least once."""


@dataclass(frozen=True)
class Standing:
    """What many jobs cost that are at work."""

    live: int
    memory: float
    """MB."""
    restart_seconds: float
    restart_writes: int
    idle_requests: int
    """For single objects, at a resync."""
    progress_writes: float
    """Status writes of one object in 10 s of progress, at most."""
    memory_of: dict[str, float]
    """MB of the control plane's programs."""


async def standing(ground: Ground, *, size: int, progress_seconds: float) -> Standing:
    """Brings jobs to work and reads everything off."""
    await ground.clean()
    async with operating(ground.folder / "operator", ground.server) as operator:
        await populate(ground, operator, size)
        await operator.quiet()
        memory = megabytes(operator.process.pid)
        before = object_requests(ground.server)
        seconds = await operator.restart(passes=size)
        await operator.quiet()
        made = writes(object_requests(ground.server)) - writes(before)
        progress = await _progress_writes(ground, seconds=progress_seconds)
        await finish(ground, operator, _SOME)
    idle = await _idle_requests(ground)
    programs = {name: megabytes(pid) for name, pid in ground.pids.items()}
    return Standing(size, memory, seconds, made, idle, progress, programs)


async def crowded(ground: Ground, *, size: int) -> float:
    """Memory of the operator, in MB, once so many jobs are at work; those that are there already count."""
    async with operating(ground.folder / "operator", ground.server) as operator:
        await populate(ground, operator, size)
        return megabytes(operator.process.pid)


async def _idle_requests(ground: Ground) -> int:
    """Requests for single objects during a resync of jobs that run, wait or are finished."""
    for name in fresh_names(_SOME):
        job = finetunejob(name)
        job["spec"] = {**job["spec"], "dataset": {"from": "FilterJob/missing"}}
        await ground.client.create(finetunejobs(TEAM), job)
    async with operating(ground.folder / "operator", ground.server, sweep_interval=_SWEEPS) as operator:
        await operator.has(_SOME, "Waiting")
        await operator.quiet()
        before, passes = object_requests(ground.server), operator.page().passes
        await asyncio.sleep(_RESYNC_SECONDS)
        if operator.page().passes == passes:
            raise BenchmarkError(f"no pass was made in {_RESYNC_SECONDS:.0f} s: nothing was resynced")
        return (object_requests(ground.server) - before).total()


async def _progress_writes(ground: Ground, *, seconds: float) -> float:
    """The most status writes that one of some jobs got in 10 s, while their stages told something new all the time."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    last: dict[str, Json] = {}

    def see(event: str, obj: Json) -> None:
        name, progress = obj["metadata"]["name"], (obj.get("status") or {}).get("progress")
        if event == "MODIFIED" and progress and progress != last.get(name):
            last[name] = progress
            seen[name].append(time.perf_counter())

    async with (
        progress_endpoints(_SOME) as addresses,
        running(ground.client.observe(finetunejobs(OTHER_TEAM), see)),
    ):
        jobs = await submit(ground, fresh_names(_SOME), namespace=OTHER_TEAM)
        await at_once(zip(jobs, addresses, strict=True), lambda pair: pair[0].live(pair[1]))
        await until(lambda: len(seen) == _SOME, f"the progress of {_SOME} jobs")
        await asyncio.sleep(seconds + 2 * _SLACK)
    most = max(sum(first < at <= first + seconds + _SLACK for at in times) for first, *times in seen.values())
    if not most:
        raise BenchmarkError(f"no progress was written in {seconds:.0f} s")
    return most * 10 / seconds
