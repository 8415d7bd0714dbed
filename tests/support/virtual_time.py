"""An event loop whose time jumps to the next timer, so that hours pass in milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
NEVER = 10.0**8
"""Seconds after which what still waits is said to wait for ever."""


class _Skipping(selectors.SelectSelector):
    """Where a loop would sleep, its time moves instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(None if timeout is None else 0.0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0, and stands still while something can be done."""

    def __init__(self) -> None:
        self._clock = _Skipping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine from the time 0 on. Fails when it waits for what never comes."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(work, NEVER))


def now() -> float:
    """Seconds since the beginning of this virtual time."""
    return asyncio.get_running_loop().time()
