"""One team changes its objects all the time: the jobs of another team come as fast as before."""

import gc
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from posttrain_operator import labels
from posttrain_operator.cluster import Json, Ref
from support.api import Api
from support.control_plane import ControlPlane, fresh_namespace
from support.playground import Playground, playground
from support.scene import SPECS
from support.tools import Tools
from support.waiting import wait_for

# Times of two minutes are compared: whatever else the machine does in one of them would be taken for the storm's work.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
log = logging.getLogger(__name__)
Change = Callable[[int], Json]
"""The n-th change of an object."""
STORMS: Final[dict[str, tuple[float, Change]]] = {
    "notes": (100, lambda number: {"metadata": {"annotations": {"note": str(number)}}}),
    # The API server has no more than about a hundred of these a second in it, the operator's answers included.
    "edits": (25, lambda number: {"spec": {"run": {"retries": number % 100}}}),
}
"""By what is changed: changes a second, and the change."""
OBJECTS: Final = 20
NOISE: Final = 0.05
"""Seconds by which one measurement on a busy machine differs from the next."""


@dataclass(frozen=True)
class Noisy:
    """A namespace with objects that somebody changes."""

    api: Api
    refs: list[Ref]
    rate: float
    """Changes a second, as far as the machine makes it."""
    change: Change

    @contextmanager
    def storm(self) -> Iterator[Callable[[], int]]:
        """Edits one job after the other, until the end of the context; gives the number of edits so far."""
        over, numbers, began = threading.Event(), itertools.count(), time.monotonic()
        done: list[int] = []

        def change() -> None:
            while not over.is_set():
                number = next(numbers)
                time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
                ref = self.refs[number % len(self.refs)]
                self.api.patch(ref, self.change(number // len(self.refs)))
                done.append(number)

        threads = [threading.Thread(target=change) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            yield lambda: len(done)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert len(done) > self.rate * (time.monotonic() - began) / 2, "no storm"


def noisy(api: Api, namespace: str, kind: str) -> Noisy:
    """Jobs in a namespace."""
    refs = []
    for number in range(OBJECTS):
        metadata = {"name": f"noisy-{number}", "namespace": namespace}
        obj = {"apiVersion": labels.API_VERSION, "kind": "FineTuneJob", "metadata": metadata}
        refs.append(Ref.of(api.create({**obj, "spec": SPECS["FineTuneJob"]})))
    return Noisy(api, refs, *STORMS[kind])


def latencies(ground: Playground, *, number: int, seconds: float = 0.0) -> list[float]:
    """Seconds from creating a job to its child, of one job after the other, in order of length.

    There are at least ``number`` jobs, and ``seconds`` are filled with them.
    """
    found: list[float] = []
    start = time.monotonic()
    gc.disable()  # it stops who measures for half a second, once in a hundred jobs
    try:
        while len(found) < number or time.monotonic() - start < seconds:
            began = time.monotonic()
            job = ground.submit("UploadJob")
            wait_for(lambda: any(child["kind"] == "Job" for child in job.children), "a child")  # noqa: B023
            found.append(time.monotonic() - began)
    finally:
        gc.enable()
    return sorted(found)


def check(tools: Tools, folder: Path, kind: str, *, number: int, seconds: float, share: float) -> None:
    """A storm costs others at most twice what it costs them when the operator does not watch where it is.

    What it costs at the API server alone is not the operator's doing.

    ``share`` is that of the jobs whose wait is compared: of few, only the one in the middle tells anything.
    """
    found = []
    for watched in (False, True):
        with ExitStack() as stack:
            # One for each, lest the second deletes the first one's thousands of objects while it is measured.
            plane = stack.enter_context(ControlPlane(folder / f"watched-{watched}", tools))
            api = stack.enter_context(plane.access.api())
            namespace = stack.enter_context(fresh_namespace(plane.access, api))
            whole = playground(plane.access, api, folder, namespaces="")
            ground = stack.enter_context(whole if watched else playground(plane.access, api, folder))
            storm = noisy(api, namespace, kind)
            latencies(ground, number=5)
            with storm.storm():
                found.append(latencies(ground, number=number, seconds=seconds))
    unseen, seen = (times[int(len(times) * share)] for times in found)
    told = [(len(times), times[len(times) // 2], times[int(len(times) * share)]) for times in found]
    log.info("%s: jobs, median and share %s of the seconds: %s", kind, share, told)
    assert seen <= 2 * unseen + NOISE, (told, found)
    assert found[1][-1] <= 2 * found[0][-1] + 1, "somebody was stopped"


@pytest.mark.parametrize("kind", STORMS)
def test_a_short_storm_does_not_slow_another(tools: Tools, tmp_path: Path, kind: str) -> None:
    check(tools, tmp_path, kind, number=12, seconds=0, share=0.5)


@pytest.mark.parametrize("kind", STORMS)
def test_a_long_storm_does_not_slow_another(tools: Tools, tmp_path: Path, kind: str) -> None:
    check(tools, tmp_path, kind, number=500, seconds=300, share=0.99)
