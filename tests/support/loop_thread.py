"""An event loop in a thread of its own, so that a test in plain Python can play a server or a controller."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
SECONDS = 60.0


class LoopThread:
    """Runs coroutines in a thread; leaving the context cancels what is still running and waits for it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the thread and waits for its value."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Encrypted connections take a few turns of the loop to close; what is left then is the loop's own wake-up call.
        deadline = self._loop.time() + 20
        while self._loop.time() < deadline and self._connections():  # noqa: ASYNC110 - transports have no event for it
            await asyncio.sleep(0.01)

    def _connections(self) -> bool:
        """Whether the loop still looks after anything but its own wake-up call."""
        return len(self._loop._selector.get_map()) > 1  # type: ignore[attr-defined]
