"""One local run: admit the objects, drive the operator's loop until nothing moves any more, end every process."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.reconcile import reconcile
from posttrain_operator.settings import Settings

from posttrain.local.cluster import LocalCluster
from posttrain.local.objects import ObjectStore, Say, admit
from posttrain.local.workspace import LocalOptions, WorkspaceLock

_PROGRESS_INTERVAL: Final = timedelta(seconds=1)
_BREATH: Final = 0.02
"""Seconds between passes at least: events that come together are handled together."""
_GRACE: Final = timedelta(minutes=2)

Watch = Callable[[Sequence[Json]], None]


class InterruptedRunError(Exception):
    """The user stopped the run; every process has ended, and the same command goes on."""


async def run_local(objects: Sequence[Json], options: LocalOptions, *, watch: Watch, say: Say) -> tuple[Json, ...]:
    """Runs objects to their end and returns them with their status.

    ``watch`` gets all objects whenever something changed, ``say`` gets sentences for people. On the first interrupt
    every object is suspended, which saves checkpoints; on the second every process is killed; then
    ``InterruptedRunError`` is raised. Raises ``WorkspaceBusyError`` when another run works in the same folder.
    """
    lock = WorkspaceLock(options)
    await lock.acquire(say)
    try:
        store = ObjectStore(options)
        session = _Session([Ref.of(o) for o in admit(objects, store, options, say)], store, options, lock, watch)
        return await session.run(say)
    finally:
        lock.release()


class _Session:
    def __init__(
        self, refs: Sequence[Ref], store: ObjectStore, options: LocalOptions, lock: WorkspaceLock, watch: Watch
    ) -> None:
        self._refs = refs
        self._store = store
        self._watch = watch
        self._changed = asyncio.Event()
        self._interrupts = 0
        self._settings = Settings(
            hub_endpoint=options.hub_endpoint,
            file_uris=True,
            progress_interval=_PROGRESS_INTERVAL,
            first_backoff=timedelta(seconds=1),
            termination_grace=_GRACE,
        )
        self._cluster = LocalCluster(options, store, lock_descriptor=lock.descriptor, changed=self._changed.set)

    async def run(self, say: Say) -> tuple[Json, ...]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, say)
        try:
            await self._drive()
        except BaseException:
            self._cluster.kill()
            raise
        finally:
            await self._cluster.join()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        if self._interrupts:
            raise InterruptedRunError
        return self._objects()

    def _interrupt(self, say: Say) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            say("stopping after a checkpoint; interrupt again to stop at once")
            self._cluster.draining = True
        else:
            self._cluster.kill()
        self._changed.set()

    async def _drive(self) -> None:
        """Passes over all objects until nothing is left to do or to wait for."""
        phases: list[str | None] = []
        while True:
            self._changed.clear()
            self._cluster.step()
            pauses = [pause for ref in self._refs if (pause := await self._pass(ref)) is not None]
            objects = self._objects()
            self._watch(objects)
            if self._at_rest():
                return
            await asyncio.sleep(_BREATH)
            before, phases = phases, [read_status(obj.get("status")).phase for obj in objects]
            if before == phases:
                await self._wait(min(pauses, default=_PROGRESS_INTERVAL))

    async def _pass(self, ref: Ref) -> timedelta | None:
        outcome = await reconcile(self._cluster, ref, self._settings, now=datetime.now(UTC))
        return outcome.requeue_after

    async def _wait(self, longest: timedelta) -> None:
        try:
            async with asyncio.timeout(longest.total_seconds()):
                await self._changed.wait()
        except TimeoutError:
            return

    def _at_rest(self) -> bool:
        """Whether every object has ended, or waits for something that will not come; and no pod is left."""
        return not self._cluster.busy and all(self._resting(obj) for obj in self._objects())

    def _resting(self, obj: Json) -> bool:
        status = read_status(obj.get("status"))
        return status.finished or status.holds("Stalled") or (self._cluster.draining and status.holds("Suspended"))

    def _objects(self) -> tuple[Json, ...]:
        return tuple(obj for ref in self._refs if (obj := self._store.read(ref)) is not None)
