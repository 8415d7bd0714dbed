"""Lets the operator work for hours, changes a job every second, and starts it anew now and then.

``python -m benchmarks.operator.soak`` takes six and a half hours; ``--hours``, ``--jobs`` and so on make it shorter.
Afterwards nothing may be left that belongs to nobody, nothing may have grown, and an idle operator writes nothing.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil
from support.api_client import Json, unless

from benchmarks.operator.ground import TEAM, Ground, ground
from benchmarks.operator.lives import PlayedJob
from benchmarks.operator.load import PYTORCHJOBS, finetunejobs
from benchmarks.operator.population import populate, submit
from benchmarks.operator.readings import megabytes, object_requests, writes
from benchmarks.operator.subject import Subject, operating
from benchmarks.table import Row, report, show

_GONE: Final = (404, 409)
_LONG_ENOUGH: Final = 1.0
"""Hours of samples from which a slope is told."""


@dataclass(frozen=True)
class Scale:
    """How long, and of how much."""

    hours: float = 6.0
    jobs: int = 1000
    per_second: float = 1.0
    restart_minutes: float = 30.0
    idle_minutes: float = 10.0


@dataclass
class Samples:
    """What the process held, since it was last started."""

    hours: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)

    def take(self, process: int, hours: float) -> None:
        """Reads it off."""
        self.hours.append(hours)
        self.megabytes.append(megabytes(process))
        self.files.append(psutil.Process(process).num_fds())

    def slope(self, values: Sequence[float]) -> float:
        """How much a value grows in an hour."""
        return statistics.linear_regression(self.hours, values).slope if len(set(self.hours)) > 1 else 0.0

    @property
    def span(self) -> float:
        """Hours from the first to the last."""
        return self.hours[-1] - self.hours[0] if self.hours else 0.0


@dataclass(frozen=True)
class Found:
    """What came of it."""

    changes: int
    restarts: int
    longest: Samples
    """Those of the process that lasted longest."""
    orphans: int
    idle_writes: int


async def soak(folder: Path, scale: Scale) -> Found:
    """Changes, restarts, and then rest."""
    async with ground(folder) as plane, operating(folder / "operator", plane.server) as operator:
        await populate(plane, operator, scale.jobs)
        await operator.quiet()
        lives = [Samples()]
        changes = await _change(plane, operator, scale, lives)
        await operator.quiet()
        before = writes(object_requests(plane.server))
        await asyncio.sleep(scale.idle_minutes * 60)
        idle = writes(object_requests(plane.server)) - before
        longest = max(lives, key=lambda samples: samples.span)
        return Found(changes, len(lives) - 1, longest, await _orphans(plane), idle)


async def _change(plane: Ground, operator: Subject, scale: Scale, lives: list[Samples]) -> int:
    """One change after the other, at the rate; returns how many there were."""
    chance, began, started = random.Random(7), time.monotonic(), time.monotonic()
    for number in itertools.count():
        now = time.monotonic()
        if now - began > scale.hours * 3600:
            return number
        if now - started > scale.restart_minutes * 60:
            operator.process.kill()
            operator.process.start()
            await operator.acting()
            lives.append(Samples())
            started = time.monotonic()
        if number % max(1, int(scale.per_second * 10)) == 0:
            lives[-1].take(operator.process.pid, (now - began) / 3600)
        await chance.choice([_edit, _edit, _replace])(plane, chance)
        await asyncio.sleep(began + (number + 1) / scale.per_second - time.monotonic())
    raise AssertionError


async def _edit(plane: Ground, chance: random.Random) -> None:
    """Somebody changes a job's number of retries, or a label."""
    name = await _any(plane, chance)
    change: Json = chance.choice(
        [{"spec": {"run": {"retries": chance.randrange(9)}}}, {"metadata": {"labels": {"x": str(chance.randrange(9))}}}]
    )
    await unless(_GONE, plane.client.merge(f"{finetunejobs(TEAM)}/{name}", change))


async def _replace(plane: Ground, chance: random.Random) -> None:
    """Somebody deletes a job, and another comes and gets to work."""
    name = await _any(plane, chance)
    await unless(_GONE, plane.client.delete(f"{finetunejobs(TEAM)}/{name}"))
    (job,) = await submit(plane, [f"soak-{chance.getrandbits(64):x}"])
    await PlayedJob.live(job)


async def _any(plane: Ground, chance: random.Random) -> str:
    found = (await plane.client.get(f"{finetunejobs(TEAM)}?limit=500"))["items"]
    name: str = chance.choice(found)["metadata"]["name"]
    return name


async def _orphans(plane: Ground) -> int:
    """PyTorchJobs whose owner is gone."""
    jobs = {job["metadata"]["uid"] for job in (await plane.client.get(finetunejobs()))["items"]}
    children = (await plane.client.get(PYTORCHJOBS))["items"]
    return sum(child["metadata"]["ownerReferences"][0]["uid"] not in jobs for child in children)


def rows(found: Found) -> list[Row]:
    """The figures against what was promised; what grows slowly is told only of hours."""
    samples, long = found.longest, found.longest.span >= _LONG_ENOUGH
    return [
        Row("changes", found.changes),
        Row("restarts", found.restarts),
        Row("memory", samples.megabytes[-1], "MB"),
        Row("memory grows in an hour", samples.slope(samples.megabytes), "MB", at_most=1.05 if long else None),
        Row("open files grow in an hour", samples.slope(samples.files), at_most=1 if long else None),
        Row("children that belong to nobody", found.orphans, at_most=0),
        Row("writes while nothing happens", found.idle_writes, at_most=0),
    ]


def main() -> int:
    """Runs it; 1 when a target does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator.soak", description=__doc__)
    for name, default in asdict(Scale()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, metavar=f"{default:g}")
    scale = Scale(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="posttrain-soak-") as folder:
        found = asyncio.run(soak(Path(folder), scale))
    if scale != Scale():
        return show(rows(found))  # what was cut short is no result to keep
    return report("operator-soak", rows(found), scale=asdict(scale), samples=asdict(found.longest))


if __name__ == "__main__":
    sys.exit(main())
