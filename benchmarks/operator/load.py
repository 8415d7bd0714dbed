"""Objects as users create them, and when what they lead to is seen."""

import asyncio
import bisect
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from posttrain_operator import labels
from support.api_client import ApiClient, Json

T = TypeVar("T")
AT_ONCE: Final = 20
"""Requests that users have under way in a burst."""
PER_SECOND: Final = 20.0
"""Objects that users create when they do not hurry."""
PATIENCE: Final = 300.0
"""Seconds after which a benchmark gives up."""
PYTORCHJOBS: Final = "/apis/kubeflow.org/v1/pytorchjobs"
CONFIGMAPS: Final = f"/api/v1/configmaps?labelSelector={labels.NAME}"
PODS: Final = "/api/v1/pods"
SPEC: Final[Json] = {
    "method": "sft",
    "model": {"uri": "pvc://posttrain/model"},
    "dataset": {"uri": "pvc://posttrain/data"},
    "training": {"maxSteps": 1000},
}
Post = Callable[[str], Awaitable[Any]]
"""Creates the object with a name."""
Arrival = Callable[[Sequence[str], Post], Awaitable[None]]
"""Creates objects in some rhythm."""


class BenchmarkError(Exception):
    """Something did not happen that a figure rests on."""


def finetunejobs(namespace: str = "") -> str:
    """The path of the FineTuneJobs of a namespace, or of all."""
    return f"/apis/{labels.API_VERSION}/{f'namespaces/{namespace}/' if namespace else ''}finetunejobs"


def finetunejob(name: str) -> Json:
    """A FineTuneJob of one pod."""
    return {"apiVersion": labels.API_VERSION, "kind": "FineTuneJob", "metadata": {"name": name}, "spec": SPEC}


async def until(condition: Callable[[], bool], what: str, *, pause: float = 0.1) -> None:
    """Returns once the condition holds, looked at every ``pause`` seconds. Raises ``BenchmarkError``."""
    deadline = time.perf_counter() + PATIENCE
    while not condition():
        if time.perf_counter() > deadline:
            raise BenchmarkError(f"waited {PATIENCE:.0f} s for {what}")
        await asyncio.sleep(pause)


async def at_once(items: Iterable[T], work: Callable[[T], Awaitable[Any]], number: int = AT_ONCE) -> None:
    """Works on all items, on so many at a time."""
    waiting = iter(items)

    async def user() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as users:
        for _ in range(number):
            users.create_task(user())


async def burst(names: Sequence[str], post: Post) -> None:
    """As fast as ``AT_ONCE`` users get their answers."""
    await at_once(names, post)


async def paced(names: Sequence[str], post: Post) -> None:
    """At a steady rate, whether answers come or not."""
    began = time.perf_counter()

    async def one(name: str) -> None:
        await post(name)

    async with asyncio.TaskGroup() as users:
        for number, name in enumerate(names):
            await asyncio.sleep(began + number / PER_SECOND - time.perf_counter())
            users.create_task(one(name))


@dataclass(frozen=True)
class Wave:
    """What came of a number of objects; times are seconds after the first of them was sent."""

    sent: dict[str, float]
    """When each was sent, in the order in which they were acknowledged."""
    child: dict[str, float]
    """When the child of each was first seen."""
    done: float
    """When all that was waited for was there."""
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Seconds of processors that it took, by program, where that was measured."""

    @property
    def first(self) -> float:
        """When the first child was seen."""
        return min(self.child.values())

    def latency(self, share: float) -> float:
        """Seconds from sending an object to seeing its child, which so large a share of them did not exceed."""
        found = sorted(self.child[name] - sent for name, sent in self.sent.items())
        return found[min(int(len(found) * share), len(found) - 1)]

    @property
    def overtaken(self) -> int:
        """How many later objects were served before one that came earlier, at worst."""
        served: list[float] = []
        worst = 0
        for name in reversed(self.sent):
            worst = max(worst, bisect.bisect_left(served, self.child[name]))
            bisect.insort(served, self.child[name])
        return worst

    def to_json(self) -> dict[str, Any]:
        """The figures in seconds."""
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        found = {name: self.latency(share) for name, share in shares.items()}
        figures = {"first": self.first, "done": self.done, **found}
        rounded = {name: round(value, 4) for name, value in figures.items()}
        cpu = {program: round(seconds, 2) for program, seconds in self.cpu.items()}
        return {"objects": len(self.sent), **rounded, "overtaken": self.overtaken, "cpu": cpu}


@dataclass
class Sightings:
    """When something was first seen of each name, by ``time.perf_counter``."""

    first: dict[str, float] = field(default_factory=dict)

    async def wait(self, names: Sequence[str], what: str) -> None:
        """Returns once all were seen. Raises ``BenchmarkError`` when some never are."""
        await until(lambda: all(name in self.first for name in names), f"{what} of {len(names)} objects", pause=0.02)


@asynccontextmanager
async def watching(client: ApiClient, path: str, name: Callable[[Json], str | None]) -> AsyncIterator[Sightings]:
    """Notes what is seen at a path under the name that an object gives, until the end of the context."""
    seen = Sightings()

    def see(_: str, obj: Json) -> None:
        if (found := name(obj)) is not None:
            seen.first.setdefault(found, time.perf_counter())

    async with running(client.observe(path, see)):
        yield seen


@asynccontextmanager
async def running(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Does something until the end of the context."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def of_job(obj: Json) -> str | None:
    """The job that a child belongs to."""
    return (obj["metadata"].get("labels") or {}).get(labels.NAME)


def of_pytorchjob(obj: Json) -> str | None:
    """The PyTorchJob that a pod belongs to."""
    return (obj["metadata"].get("labels") or {}).get("training.kubeflow.org/job-name")


def with_phase(obj: Json) -> str | None:
    """The job, once it has a status."""
    return obj["metadata"]["name"] if (obj.get("status") or {}).get("phase") else None


@dataclass
class Sender:
    """Creates objects and notes when."""

    create: Post
    sent: dict[str, float] = field(default_factory=dict)
    """In the order of acknowledgement."""

    async def __call__(self, name: str) -> None:
        began = time.perf_counter()
        await self.create(name)
        self.sent[name] = began


_numbers = itertools.count(1)


def fresh_names(count: int) -> list[str]:
    """Names that no object has had yet."""
    wave = next(_numbers)
    return [f"w{wave}-{number:05}" for number in range(count)]


def since_first(sent: dict[str, float], child: dict[str, float], done: float) -> Wave:
    """A wave, from times of ``time.perf_counter``."""
    zero = min(sent.values())
    return Wave(
        {name: at - zero for name, at in sent.items()},
        {name: child[name] - zero for name in sent},
        done - zero,
    )
