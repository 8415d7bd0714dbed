"""A view of the cluster as it was: every list, get and watch is answered from an earlier version than the newest."""

import asyncio
import json
import threading
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode

from support.faults import Fault, Instead, Request, Shaped, Which
from support.watch_faults import Lines

PROBE: Final = "/api/v1/namespaces?limit=1"
"""A list whose resourceVersion is the newest of everything, because all resources share one store."""
INTERVAL: Final = 0.1
"""Seconds between two records of the newest version; the view is as precise as that."""


def not_leases(request: Request) -> bool:
    """Who leads is decided by tested writes; a lease that is read late only makes nobody lead."""
    return request.resource != "leases"


class StaleView:
    """What a client sees that is ``lag`` seconds behind: a rule for ``FaultProxy``.

    Lists ask the API server for exactly the version that was the newest then, a get is a list of one, and watches hold
    events back until they are that old. Nothing is older than the first record.
    """

    def __init__(self, lag: float, *, which: Which = not_leases) -> None:
        self.lag = lag
        """Seconds; 0 and it sees what there is."""
        self._which = which
        self._times: list[float] = []
        self._versions: list[int] = []

    def __call__(self, request: Request) -> Fault | None:
        if not request.resource or not self._which(request):
            return None
        if request.verb == "watch":
            return Shaped(self._delayed)
        if request.verb == "get":
            collection = request.path.rpartition("/")[0]
            return Instead(self._exactly(collection, fieldSelector=f"metadata.name={request.name}"), _only)
        if request.verb == "list" and "continue" not in request.query:
            return Instead(self._exactly(request.path, **request.query))
        return None

    @contextmanager
    def recording(self, ask: Callable[[str], dict[str, Any]]) -> Iterator[None]:
        """Keeps a record of the newest version; ``ask`` gets a path from the API server. Enters with the first one."""
        over = threading.Event()
        self._ask(ask)
        thread = threading.Thread(target=self._record, args=(ask, over), name="stale-view")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _record(self, ask: Callable[[str], dict[str, Any]], over: threading.Event) -> None:
        while not over.wait(INTERVAL):
            self._ask(ask)

    def _ask(self, ask: Callable[[str], dict[str, Any]]) -> None:
        asked = time.monotonic()
        self._versions.append(int(ask(PROBE)["metadata"]["resourceVersion"]))
        self._times.append(asked)

    @property
    def version(self) -> int:
        """The newest version that is seen now."""
        records = bisect_right(self._times, time.monotonic() - self.lag)
        return self._versions[max(records - 1, 0)]

    def _exactly(self, path: str, **query: str) -> str:
        exact = {"resourceVersion": str(self.version), "resourceVersionMatch": "Exact"}
        return f"{path}?{urlencode({**query, **exact})}"

    async def _delayed(self, lines: Lines) -> AsyncIterator[bytes]:
        async for line in lines.rest():
            version = json.loads(line)["object"].get("metadata", {}).get("resourceVersion") or "0"
            while int(version) > self.version:  # noqa: ASYNC110 - the clock moves it, and the recording thread
                await asyncio.sleep(INTERVAL / 2)
            yield line


def _only(status: int, data: bytes) -> tuple[int, bytes]:
    """The answer to a get, from that to a list of one."""
    if status != 200:
        return status, data
    found = json.loads(data)
    if not found["items"]:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        return 404, json.dumps(body).encode()
    kind = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
    return 200, json.dumps({**kind, **found["items"][0]}).encode()
