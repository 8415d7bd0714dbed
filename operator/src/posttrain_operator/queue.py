"""The work queue: which keys want a pass, and when.

A key is worked on by one worker at a time; what is added meanwhile is worked on once more afterwards. Namespaces take
turns, so a busy one delays the others by one key, not by all of its own. Failures wait longer and longer. A key that is
added all the time gets about nine passes at once, and then one in two seconds.
"""

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from posttrain_operator.cluster import Ref

_FIRST_PAUSE: Final = 0.2
"""Seconds before a failed key is tried again; doubles with every failure."""
_LONGEST_PAUSE: Final = 60.0
_JITTER: Final = 0.25
"""Share by which a pause is stretched at random, so that keys which began together do not come back together."""

_PACE: Final = 2.0
"""Seconds that one key's passes are apart when it wants them all the time."""
_TICK: Final = 0.001
"""Seconds that are not worth a timer; less may be lost in a sum."""
_AHEAD: Final = 20.0
"""Seconds of that which a key may use up at once."""


class WorkQueue:
    """Keys without repetition, by namespace in turn. Belongs to one event loop."""

    def __init__(
        self, *, jitter: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ready: OrderedDict[str, deque[Ref]] = OrderedDict()
        self._waiting: dict[Ref, float] = {}
        """Keys in ``_ready``, in the order in which they came, and since when."""
        self._at_work: set[Ref] = set()
        self._again: set[Ref] = set()
        """Keys at work that were added meanwhile."""
        self._timers: dict[Ref, asyncio.TimerHandle] = {}
        self._failures: dict[Ref, int] = {}
        self._paid_until: dict[Ref, float] = {}
        """Up to when the passes of a key last, at ``_PACE`` each."""
        self._jitter = jitter
        self._clock = clock
        self._wakers: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def at_work(self) -> int:
        """Keys that a worker holds."""
        return len(self._at_work)

    @property
    def longest_wait(self) -> float:
        """Seconds for which the oldest of the waiting keys has waited."""
        since = next(iter(self._waiting.values()), None)
        return self._clock() - since if since is not None else 0.0

    def add(self, key: Ref) -> None:
        """Wants a pass as soon as possible."""
        if key in self._waiting:
            return
        if key in self._at_work:
            self._again.add(key)
            return
        if (early := self._early(key)) > 0:
            self.add_after(key, timedelta(seconds=early))
            return
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._waiting[key] = self._clock()
        self._ready.setdefault(key.namespace, deque()).append(key)
        self._wake()

    def add_after(self, key: Ref, delay: timedelta) -> None:
        """Wants a pass after a time, or sooner when it is added again; of two times the earlier holds."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(delay.total_seconds(), 0.0)
        timer = self._timers.get(key)
        if key in self._waiting or (timer is not None and timer.when() <= due):
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def failed(self, key: Ref, *, at_least: timedelta | None = None) -> None:
        """Wants a pass after a pause that grows with every failure in a row."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        grown = timedelta(seconds=min(_FIRST_PAUSE * 2 ** min(count - 1, 20), _LONGEST_PAUSE))
        self.add_after(key, max(grown, at_least or timedelta()) * self._stretch())

    def succeeded(self, key: Ref) -> None:
        """Forgets the failures of a key."""
        self._failures.pop(key, None)

    async def take(self) -> Ref:
        """The next key; ``done`` must follow."""
        while not self._ready:
            waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            try:
                await waker
            except asyncio.CancelledError:
                if not waker.cancelled():
                    self._wake()  # it was woken for a key, which is another worker's now
                raise
        namespace, keys = next(iter(self._ready.items()))
        key = keys.popleft()
        if keys:
            self._ready.move_to_end(namespace)
        else:
            del self._ready[namespace]
        del self._waiting[key]
        self._at_work.add(key)
        return key

    def done(self, key: Ref) -> None:
        """Gives a key back."""
        self._at_work.discard(key)
        if self._paid_until.get(key, 0.0) <= self._clock():
            self._paid_until.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    async def work(self, handle: Callable[[Ref], Awaitable[None]]) -> None:
        """One worker, for ever. ``handle`` must not raise. A pass that is cancelled is for another worker to repeat."""
        while True:
            key = await self.take()
            try:
                await handle(key)
            except asyncio.CancelledError:
                self._again.add(key)
                raise
            finally:
                self.done(key)
            # A pass that finds nothing to do waits for nobody: without this, a long queue would stop everything else.
            await asyncio.sleep(0)

    def _stretch(self) -> float:
        return 1 + _JITTER * self._jitter()

    def _early(self, key: Ref) -> float:
        """Seconds by which a pass would come too early; none: it is counted.

        Each pass pays for ``_PACE`` or a little more, up to ``_AHEAD`` ahead, so that a key which is added without end
        is in the end as far from its last pass.
        """
        now = self._clock()
        paid_until = max(self._paid_until.get(key, now), now)
        early = paid_until + _PACE - now - _AHEAD
        if early > _TICK:
            return early
        self._paid_until[key] = paid_until + _PACE * self._stretch()
        return 0.0

    def _due(self, key: Ref) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._wakers:
            waker = self._wakers.popleft()
            if not waker.done():
                waker.set_result(None)
                return
