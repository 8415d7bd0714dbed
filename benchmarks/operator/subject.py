"""The operator under measurement: one process, started as a pod starts it, and asked over its own pages."""

import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.api_client import Server
from support.operator_process import OperatorProcess, kubeconfig, operator_process

from benchmarks.operator.load import until
from benchmarks.operator.readings import samples

_QUIET: Final = 1.0
"""Seconds without a write after which none is under way."""
_FEW: Final = 5
"""Jobs at work are looked at every few seconds, so of many a few may be waiting at any time."""


@dataclass(frozen=True)
class Page:
    """What the operator told at /metrics at one moment."""

    text: str

    def metric(self, name: str, **wanted: str) -> float:
        """The sum of those series of a metric that have the labels."""
        return sum(value for labels, value in samples(self.text, name) if wanted.items() <= labels.items())

    @property
    def acts(self) -> bool:
        """Whether it holds the lease."""
        return self.metric("posttrain_leader") == 1

    @property
    def waiting(self) -> float:
        """Objects that wait for a pass or have one."""
        return self.metric("posttrain_queue_depth") + self.metric("posttrain_queue_working")

    @property
    def passes(self) -> int:
        """Passes since it was started."""
        return int(self.metric("posttrain_reconcile_seconds_count"))

    @property
    def writes(self) -> int:
        """Requests since it was started that change something, but for those that keep the Lease."""
        verbs = ("POST", "PATCH", "DELETE")
        return int(sum(self.metric("posttrain_api_request_seconds_count", verb=verb) for verb in verbs))

    def jobs(self, phase: str) -> int:
        """FineTuneJobs in a phase."""
        return int(self.metric("posttrain_jobs", kind="FineTuneJob", phase=phase))


class Subject:
    """A running operator."""

    def __init__(self, process: OperatorProcess) -> None:
        self.process = process

    async def acting(self) -> None:
        """Returns once it has seen the whole cluster and may write."""
        await until(lambda: self.process.is_ready() and self.page().acts, "the operator to act")

    async def quiet(self) -> None:
        """Returns once it has written nothing for a moment and nobody waits. Passes that only look may go on."""
        done, since = -1, 0.0

        def is_quiet() -> bool:
            nonlocal done, since
            page = self.page()
            if page.writes != done or page.waiting > _FEW:
                done, since = page.writes, time.perf_counter()
            return time.perf_counter() - since > _QUIET

        await until(is_quiet, "the operator to write no more")

    async def has(self, number: int, phase: str) -> None:
        """Returns once so many FineTuneJobs, or more, are in a phase."""
        await until(lambda: self.page().jobs(phase) >= number, f"{number} jobs to be {phase}")

    async def restart(self, *, passes: int) -> float:
        """Kills it, starts it again, and returns the seconds until it has made so many passes and has nothing left."""
        self.process.kill()
        began = time.perf_counter()
        self.process.start()
        await until(self.process.is_ready, "the operator to be ready", pause=0.02)

        def is_through() -> bool:
            page = self.page()
            return page.passes >= passes and not page.waiting

        await until(is_through, f"{passes} passes of the operator")
        return time.perf_counter() - began

    def page(self) -> Page:
        """Asks for its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.process.port}/metrics", timeout=30) as answer:
            return Page(answer.read().decode())


@asynccontextmanager
async def operating(folder: Path, server: Server, **settings: str) -> AsyncIterator[Subject]:
    """An operator that acts, until the end of the context."""
    configuration = kubeconfig(server.url, server.token, server.authority)
    with operator_process(folder, configuration, **settings) as process:
        subject = Subject(process)
        await subject.acting()
        yield subject
