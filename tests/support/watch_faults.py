"""What can happen to a watch: shapes that its events pass through, one line of JSON each."""

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

_EXPIRED: Final = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "too old resource version",
        "reason": "Expired",
        "code": 410,
    },
}


class Lines:
    """The events of a watch as they come; reading may be given up and taken up again."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def pump(self, source: AsyncIterator[bytes]) -> None:
        """Takes in everything from an API server's answer, and then its end."""
        try:
            async for line in source:
                self._queue.put_nowait(line)
        finally:
            self._queue.put_nowait(None)

    async def read(self, seconds: float | None = None) -> bytes | None:
        """The next event, or None at the end. Raises ``TimeoutError`` when there is none within that time."""
        async with asyncio.timeout(seconds):
            line = await self._queue.get()
        if line is None:
            self._queue.put_nowait(None)
        return line

    async def rest(self) -> AsyncIterator[bytes]:
        """All events up to the end."""
        while (line := await self.read()) is not None:
            yield line


Shape = Callable[[Lines], AsyncIterator[bytes]]
"""From the events of the API server to those that the client sees; where it ends, the watch ends."""


async def as_it_is(lines: Lines) -> AsyncIterator[bytes]:
    async for line in lines.rest():
        yield line


def cut(seconds: float) -> Shape:
    """The watch ends after so many seconds."""

    async def shape(lines: Lines) -> AsyncIterator[bytes]:
        end = _now() + seconds
        while (left := end - _now()) > 0:
            try:
                line = await lines.read(left)
            except TimeoutError:
                return
            if line is None:
                return
            yield line

    return shape


def gone(seconds: float) -> Shape:
    """After so many seconds the watch says 410 Gone and ends."""
    cut_there = cut(seconds)

    async def shape(lines: Lines) -> AsyncIterator[bytes]:
        async for line in cut_there(lines):
            yield line
        yield json.dumps(_EXPIRED).encode() + b"\n"

    return shape


def silent(seconds: float) -> Shape:
    """After so many seconds nothing comes any more, and the connection stays open for ever."""
    cut_there = cut(seconds)

    async def shape(lines: Lines) -> AsyncIterator[bytes]:
        async for line in cut_there(lines):
            yield line
        await asyncio.Event().wait()

    return shape


def dropping_each_once(which: Callable[[dict[str, Any]], bool] = lambda _: True) -> Shape:
    """Every event is lost the first time that it would be seen, over all watches that share this shape."""
    lost: set[tuple[str, str, str]] = set()

    async def shape(lines: Lines) -> AsyncIterator[bytes]:
        async for line in lines.rest():
            event = json.loads(line)
            key = (event["type"], *_identity(event))
            if event["type"] in ("BOOKMARK", "ERROR") or key in lost or not which(event):
                yield line
            else:
                lost.add(key)

    return shape


def reordered(seconds: float, seed: int = 0) -> Shape:
    """Events within a window come in another order; those of one object keep theirs."""
    chance = random.Random(seed)

    async def shape(lines: Lines) -> AsyncIterator[bytes]:
        while (first := await lines.read()) is not None:
            window, end = [first], _now() + seconds
            while (left := end - _now()) > 0:
                try:
                    line = await lines.read(left)
                except TimeoutError:
                    break
                if line is None:
                    break
                window.append(line)
            for line in _shuffled(window, chance):
                yield line

    return shape


def chained(first: Shape, second: Shape) -> Shape:
    """What passes the first shape goes through the second."""

    async def shape(lines: Lines) -> AsyncIterator[bytes]:
        between = Lines()
        pump = asyncio.create_task(between.pump(first(lines)))
        try:
            async for line in second(between):
                yield line
        finally:
            pump.cancel()

    return shape


def _shuffled(window: list[bytes], chance: random.Random) -> list[bytes]:
    """Another order, in which each object's events keep theirs; a bookmark speaks of all before it, so it is last."""
    objects = [_object(line) for line in window]
    waiting: dict[str, deque[bytes]] = {}
    for name, line in zip(objects, window, strict=True):
        waiting.setdefault(name, deque()).append(line)
    chance.shuffle(objects)
    objects.sort(key=lambda name: name == "")
    return [waiting[name].popleft() for name in objects]


def _object(line: bytes) -> str:
    uid, _ = _identity(json.loads(line))
    return uid


def _identity(event: dict[str, Any]) -> tuple[str, str]:
    metadata = event["object"].get("metadata", {})
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")


def _now() -> float:
    return asyncio.get_running_loop().time()
