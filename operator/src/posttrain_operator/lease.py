"""One acting operator at a time: a Lease of our own.

The holder counts itself out earlier than others may count it out, by a clock that no adjustment moves and that does not
stand still for a stopped process. Others wait for a whole lease without a renewal that they themselves observe, so the
clocks of two machines need not agree.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from posttrain_operator import metrics
from posttrain_operator.cluster import Json
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.rest import RefusedError, Rest
from posttrain_operator.watched import LEASES

DURATION: Final = 12.0
"""Seconds without a renewal after which another may take over."""
VALID: Final = 8.0
"""Seconds after a renewal was asked for in which its holder may write."""
PERIOD: Final = 2.5
"""Seconds between renewals, and between the looks of those who wait."""
_log = logging.getLogger(__name__)


@dataclass
class Lease:
    """The right to act. ``rest`` must be one that asks nobody before it writes."""

    rest: Rest
    namespace: str
    name: str
    identity: str
    clock: Callable[[], float] = time.monotonic
    """Seconds that pass at the same pace everywhere, from any beginning."""
    _valid_until: float = field(default=float("-inf"), init=False)
    _seen: tuple[str, float] = field(default=("", float("-inf")), init=False)
    """The last resource version and when it was first observed."""

    @property
    def held(self) -> bool:
        """Whether this process may write now."""
        return self.clock() < self._valid_until

    def check(self) -> None:
        """Raises ``ApiUnavailable`` unless this process may write now."""
        if not self.held:
            raise ApiUnavailable(f"this process does not hold the lease {self.namespace}/{self.name}")

    async def keep(self, began: Callable[[], Awaitable[None]], ended: Callable[[], None]) -> None:
        """Acquires the lease, keeps it, and waits for it again, for ever; says when acting begins and ends."""
        acting = False
        while True:
            try:
                await asyncio.wait_for(self._try(), VALID)
            except (ApiUnavailable, RefusedError, TimeoutError) as error:
                _log.warning("lease %s/%s: %s: %s", self.namespace, self.name, type(error).__name__, error)
            if acting and not self.held:
                _log.warning("lease %s/%s is lost; standing by", self.namespace, self.name)
                acting = False
                ended()
            elif not acting and self.held:
                _log.info("lease %s/%s is held by %s", self.namespace, self.name, self.identity)
                acting = True
                await began()
            metrics.LEADER.set(acting)
            await asyncio.sleep(PERIOD)

    async def release(self) -> None:
        """Lets another take over at once."""
        if not self.held:
            return
        self._valid_until = float("-inf")
        lease = await self.rest.get(self._path)
        if _spec(lease).get("holderIdentity") == self.identity:
            await self.rest.put(self._path, {**lease, "spec": {**_spec(lease), "holderIdentity": ""}})

    async def _try(self) -> None:
        """One look at the lease, and a renewal or a take-over when that is due."""
        asked = self.clock()
        try:
            lease = await self.rest.get(self._path)
        except RefusedError as refused:
            if refused.code != 404:
                raise
            await self.rest.post(LEASES.path(self.namespace), self._lease({}, transitions=0))
        else:
            if not self._due(lease):
                self._valid_until = float("-inf")  # it is another's, whatever this process held before
                return
            taken = _spec(lease).get("holderIdentity") != self.identity
            transitions = int(_spec(lease).get("leaseTransitions") or 0) + taken
            await self.rest.put(self._path, self._lease(lease, transitions=transitions))
        self._valid_until = asked + VALID

    def _due(self, lease: Json) -> bool:
        """Whether the lease is ours to renew, or nobody's any more."""
        version, now = lease["metadata"]["resourceVersion"], self.clock()
        if version != self._seen[0]:
            self._seen = (version, now)
        holder = _spec(lease).get("holderIdentity")
        return not holder or holder == self.identity or now - self._seen[1] > DURATION

    @property
    def _path(self) -> str:
        return LEASES.path(self.namespace, self.name)

    def _lease(self, lease: Json, *, transitions: int) -> Json:
        now = self.rest.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = _spec(lease)
        acquired = now if spec.get("holderIdentity") != self.identity else spec.get("acquireTime", now)
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": lease.get("metadata") or {"name": self.name, "namespace": self.namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


def _spec(lease: Json) -> Json:
    return lease.get("spec") or {}
