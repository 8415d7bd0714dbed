"""Measures the operator against a real API server, beside others: ``make bench-operator``, QUICK=1 for two minutes.

Everything is measured in one run on one control plane without nodes; what the training operator and the kubelet would
do is played. The rows go to benchmarks/results/operator.json too. Beside the operator stand:

- a raw writer, which sends the operator's own writes and neither watches nor thinks: the API server's own limit;
- a bare kopf handler that makes one ConfigMap, where the operator makes a ConfigMap, a PyTorchJob and a status;
- the training operator, from a PyTorchJob to its first pod.

All of them share the machine with the API server and with this program, so ratios say more than times. Where the
operator's time goes in a burst tells ``python -m benchmarks.operator.profile_burst``.

This folder must have no __init__.py: scripts beside it would take it for the standard library's ``operator``.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from benchmarks.operator.comparators import kopf_handler, training_operator
from benchmarks.operator.ground import TEAM, Ground, ground
from benchmarks.operator.load import Wave, burst, fresh_names, paced
from benchmarks.operator.readings import megabytes, writes
from benchmarks.operator.scenes import Bursts, Paces, bursts, paces
from benchmarks.operator.standing import Standing, crowded, standing
from benchmarks.table import Baseline, Row, report

T = TypeVar("T")
_RAISED: Final = ("--kube-api-qps=1000", "--kube-api-burst=1000")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    burst: int = 1000
    rounds: int = 3
    small: int = 100
    steady: int = 1000
    crowd: int = 10_000
    """0: not measured."""
    progress_seconds: float = 60


QUICK: Final = Scale(burst=200, rounds=1, small=40, steady=100, crowd=0, progress_seconds=10)


@dataclass(frozen=True)
class Kopf:
    """The bare handler."""

    burst: Wave
    steady: Wave
    memory: float
    """MB after both."""


@dataclass(frozen=True)
class Upstream:
    """The training operator."""

    default: Wave
    raised: Wave
    """With the limits on its requests raised."""


@dataclass(frozen=True)
class Measured:
    """Everything."""

    scale: Scale
    bursts: Bursts
    paces: Paces
    created: Kopf
    seen: Kopf
    upstream: Upstream | None
    """None without its program."""
    standing: Standing
    crowd_memory: float | None


async def measure(folder: Path, scale: Scale) -> Measured:
    """Runs every scene on one control plane."""
    async with ground(folder) as plane:
        return Measured(
            scale,
            await _told("bursts", bursts(plane, size=scale.burst, rounds=scale.rounds)),
            await _told("paces", paces(plane, steady=scale.steady, small=scale.small, crowd=scale.burst)),
            await _told("kopf on.create", _kopf(plane, scale, "create")),
            await _told("kopf on.event", _kopf(plane, scale, "event")),
            await _told("training operator", _upstream(plane, scale)),
            await _told("standing", standing(plane, size=scale.burst, progress_seconds=scale.progress_seconds)),
            await _told("crowd", crowded(plane, size=scale.crowd)) if scale.crowd else None,
        )


async def _told(what: str, work: Coroutine[Any, Any, T]) -> T:
    """Says on standard error how far it is."""
    began = time.perf_counter()
    found = await work
    sys.stderr.write(f"{what}: {time.perf_counter() - began:.0f} s, load average {os.getloadavg()[0]:.1f}\n")
    return found


async def _kopf(plane: Ground, scale: Scale, variant: str) -> Kopf:
    await plane.clean()
    async with kopf_handler(plane.folder, plane.server, plane.client, TEAM, variant=variant) as peer:
        at_once = await peer.configmap_wave(fresh_names(scale.burst), burst)
        steady = await peer.configmap_wave(fresh_names(scale.steady), paced)
        return Kopf(at_once, steady, megabytes(peer.process))


async def _upstream(plane: Ground, scale: Scale) -> Upstream | None:
    program = plane.programs / "training-operator"
    if not program.is_file():
        sys.stderr.write(f"the training operator is not measured: there is no {program}\n")
        return None
    found = []
    for flags in ((), _RAISED):
        await plane.clean()
        async with training_operator(
            plane.folder, plane.server, plane.client, TEAM, program=program, flags=flags
        ) as peer:
            found.append(await peer.pod_wave(fresh_names(scale.small), burst))
    return Upstream(*found)


def rows(found: Measured) -> list[Row]:
    """The figures against what was promised."""
    return [*_burst_rows(found), *_pace_rows(found), *_standing_rows(found)]


def _burst_rows(found: Measured) -> list[Row]:
    size, waves, kopf = found.scale.burst, found.bursts.ours, found.created.burst
    done, raw = _median([wave.done for wave in waves]), _median([wave.done for wave in found.bursts.raw])
    first, at_most = _median([wave.first for wave in waves]), _median([wave.latency(1) for wave in waves])
    overtaken = max(wave.overtaken for wave in waves)
    what = f"burst of {size}"
    cpu = [_median([sum(wave.cpu.values()) for wave in turns]) for turns in (waves, found.bursts.raw)]
    return [
        Row(f"{what}: all children and statuses", done, "s", Baseline(raw, "raw writer"), ratio_at_most=1.5),
        Row(f"{what}: all children and statuses", done, "s", Baseline(kopf.done, "kopf on.create, 1 ConfigMap")),
        Row(
            f"{what}: all children and statuses",
            done,
            "s",
            Baseline(found.seen.burst.done, "kopf on.event, 1 ConfigMap"),
        ),
        Row(f"{what}: CPU time of all programs", cpu[0], "s", Baseline(cpu[1], "raw writer")),
        Row(f"{what}: CPU time of the operator", _median([wave.cpu["operator"] for wave in waves]), "s"),
        Row(f"{what}: first child", first * 1e3, "ms", Baseline(kopf.first * 1e3, "kopf on.create"), at_most=150),
        Row(f"{what}: slowest child", at_most, "s", Baseline(kopf.latency(1), "kopf on.create")),
        Row(f"{what}: later jobs served before one", overtaken, "jobs", at_most=size // 10),
        Row(f"{what}: a job of another namespace meanwhile", found.paces.neighbour_seconds * 1e3, "ms"),
        *_small_rows(found),
    ]


def _small_rows(found: Measured) -> list[Row]:
    what, done = f"burst of {found.scale.small}: all children and statuses", found.paces.small.done
    if found.upstream is None:
        return [Row(what, done, "s")]
    upstream = {"default limits": found.upstream.default, "limits raised": found.upstream.raised}
    return [
        Row(what, done, "s", Baseline(wave.done, f"training operator to first pods, {limits}"))
        for limits, wave in upstream.items()
    ]


def _pace_rows(found: Measured) -> list[Row]:
    ours, raw = found.paces.ours, found.paces.raw
    targets = {"p50": (0.5, 20), "p90": (0.9, None), "p99": (0.99, 70), "max": (1.0, None)}
    peers = {"raw writer": raw, "kopf on.create": found.created.steady, "kopf on.event": found.seen.steady}
    table = []
    for name, (share, target) in targets.items():
        for number, (whose, wave) in enumerate(peers.items()):
            baseline = Baseline(wave.latency(share) * 1e3, whose)
            limit = target if number == 0 else None
            figure = f"{len(ours.sent)} at 20/s: create to PyTorchJob, {name}"
            table.append(Row(figure, ours.latency(share) * 1e3, "ms", baseline, at_most=limit))
    return table


def _standing_rows(found: Measured) -> list[Row]:
    held, requests, lives = found.standing, found.paces.requests, found.paces.lives
    told = sum(count for request, count in requests.items() if request.endswith("events"))
    live = f"{held.live} jobs at work"
    table = [
        Row("writes of a FineTuneJob from create to Succeeded", writes(requests) / lives, at_most=7),
        Row("  of these Events", told / lives),
        Row("requests of jobs that wait, run or are finished, at a resync", held.idle_requests, at_most=0),
        Row("status writes of a job in 10 s of progress", held.progress_writes, at_most=1),
        Row(f"memory, {live}", held.memory, "MB", Baseline(found.created.memory, "kopf on.create"), at_most=200),
    ]
    if found.crowd_memory is not None:
        table.append(Row(f"memory, {found.scale.crowd} jobs at work", found.crowd_memory, "MB", at_most=600))
    return [
        *table,
        Row(f"restart, {live}: until all are looked at", held.restart_seconds, "s", at_most=5),
        Row(f"restart, {live}: writes", held.restart_writes, at_most=0),
        *(Row(f"memory of {program}", held.memory_of[program], "MB") for program in ("kube-apiserver", "etcd")),
    ]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _runs(found: Measured) -> dict[str, Any]:
    """What lies behind the rows."""
    return {
        "bursts": {
            "raw": [wave.to_json() for wave in found.bursts.raw],
            "ours": [wave.to_json() for wave in found.bursts.ours],
        },
        "requests": {"of": found.paces.lives, **found.paces.requests},
        "standing": asdict(found.standing),
    }


def main() -> int:
    """Measures, prints the table, writes the results; 1 when a target does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description="Measures the operator.")
    parser.add_argument("--quick", action="store_true", help="fewer objects: two minutes")
    scale = QUICK if parser.parse_args().quick else Scale()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="posttrain-bench-") as folder:
        found = asyncio.run(measure(Path(folder), scale))
    load = {"before": before, "after": os.getloadavg()[0]}
    sys.stdout.write(f"load average {load['before']:.1f} before, {load['after']:.1f} after, {os.cpu_count()} cores\n")
    return report("operator", rows(found), load=load, scale=asdict(scale), runs=_runs(found))


if __name__ == "__main__":
    sys.exit(main())
