"""Jobs that arrive, all at once or steadily: what the operator makes of them, beside the raw writer."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.operator.ground import OTHER_TEAM, TEAM, Ground
from benchmarks.operator.load import (
    CONFIGMAPS,
    PYTORCHJOBS,
    Arrival,
    BenchmarkError,
    Sender,
    Wave,
    burst,
    finetunejob,
    finetunejobs,
    fresh_names,
    of_job,
    paced,
    since_first,
    watching,
    with_phase,
)
from benchmarks.operator.population import whole_lives
from benchmarks.operator.raw_writer import raw_wave
from benchmarks.operator.readings import cpu_seconds
from benchmarks.operator.subject import operating

WARM_UP: Final = 20
_LIVES: Final = 20


async def our_wave(ground: Ground, names: Sequence[str], arrival: Arrival) -> Wave:
    """FineTuneJobs, until each has its children and a status."""

    async def post(name: str) -> None:
        await ground.client.create(finetunejobs(TEAM), finetunejob(name))

    sender = Sender(post)
    async with (
        watching(ground.client, PYTORCHJOBS, of_job) as children,
        watching(ground.client, finetunejobs(), with_phase) as statuses,
    ):
        await asyncio.sleep(1)
        await arrival(names, sender)
        await children.wait(names, "PyTorchJobs")
        await statuses.wait(names, "statuses")
    found = {of_job(item) for item in (await ground.client.get(CONFIGMAPS))["items"]}
    if missing := set(names) - found:
        raise BenchmarkError(f"{len(missing)} of {len(names)} objects have a PyTorchJob and no ConfigMap")
    done = max(max(children.first[name], statuses.first[name]) for name in names)
    return since_first(sender.sent, children.first, done)


async def neighbour(ground: Ground, *, after: float) -> float:
    """Creates one FineTuneJob in another namespace after a time; seconds until its PyTorchJob is seen."""
    (name,) = fresh_names(1)
    async with watching(ground.client, PYTORCHJOBS, of_job) as children:
        await asyncio.sleep(after)
        sent = time.perf_counter()
        await ground.client.create(finetunejobs(OTHER_TEAM), finetunejob(name))
        await children.wait([name], "PyTorchJob")
    return children.first[name] - sent


@dataclass(frozen=True)
class Bursts:
    """Equal bursts by turns, the raw writer's first."""

    raw: tuple[Wave, ...]
    ours: tuple[Wave, ...]


async def bursts(ground: Ground, *, size: int, rounds: int) -> Bursts:
    """The same burst for the raw writer and for the operator, so many times."""
    await raw_wave(ground.server, ground.client, TEAM, fresh_names(WARM_UP), burst)
    raw, ours = [], []
    for _ in range(rounds):
        await ground.clean()
        work = raw_wave(ground.server, ground.client, TEAM, fresh_names(size), burst)
        raw.append(await _metered(ground, work))
        await ground.clean()
        async with operating(ground.folder / "operator", ground.server) as operator:
            await our_wave(ground, fresh_names(WARM_UP), burst)
            work = our_wave(ground, fresh_names(size), burst)
            ours.append(await _metered(ground, work, operator=operator.process.pid))
    return Bursts(tuple(raw), tuple(ours))


async def _metered(ground: Ground, work: Coroutine[Any, Any, Wave], **programs: int) -> Wave:
    """A wave, and the processors' time that it took."""
    pids = {**ground.pids, "benchmark": os.getpid(), **programs}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    wave = await work
    return replace(wave, cpu={name: cpu_seconds(pid) - before[name] for name, pid in pids.items()})


@dataclass(frozen=True)
class Paces:
    """Objects that come steadily, and smaller things."""

    raw: Wave
    ours: Wave
    small: Wave
    """A small burst."""
    neighbour_seconds: float
    """See ``neighbour``: while a burst of another namespace is worked off."""
    requests: Counter[str]
    """The operator's for all of ``lives`` objects from create to Succeeded, by verb and resource."""
    lives: int


async def paces(ground: Ground, *, steady: int, small: int, crowd: int) -> Paces:
    """A steady stream; then, for the operator, a small burst, a neighbour of a burst, and whole lives."""
    await ground.clean()
    raw = await raw_wave(ground.server, ground.client, TEAM, fresh_names(steady), paced)
    await ground.clean()
    async with operating(ground.folder / "operator", ground.server) as operator:
        await our_wave(ground, fresh_names(WARM_UP), burst)
        small_burst = await our_wave(ground, fresh_names(small), burst)
        requests = await whole_lives(ground, operator, _LIVES)
        ours = await our_wave(ground, fresh_names(steady), paced)
        _, latency = await asyncio.gather(our_wave(ground, fresh_names(crowd), burst), neighbour(ground, after=1.5))
    return Paces(raw, ours, small_burst, latency, requests, _LIVES)
