"""A small client of the API server for those parts that a test plays: asynchronous, and it never loses sight."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from support.api import ApiError, refusal

Json = dict[str, Any]
Handle = Callable[[str, Json], None]
"""Called with ADDED, MODIFIED or DELETED and the object."""
_PAUSE: Final = 0.1
_PASSING: Final = (401, 429, 500, 502, 503, 504)
"""What an API server answers that is being started."""
MERGE: Final = "application/merge-patch+json"


@dataclass(frozen=True)
class Server:
    """Where an API server is, and as whom it is asked."""

    url: str
    token: str
    authority: Path
    """The certificate of its authority."""

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


class ApiClient:
    """Speaks to one API server. Belongs to the event loop in which it is made. Raises ``ApiError``.

    A ``patient`` one asks again until an API server that is gone is back, as real controllers do.
    """

    def __init__(self, server: Server, *, patient: bool = False) -> None:
        self._url = server.url
        self._patient = patient
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=server.tls()),
            headers={"Authorization": f"Bearer {server.token}"},
            timeout=aiohttp.ClientTimeout(total=60),
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str) -> Json:
        return await self._request("GET", path)

    async def until_there(self, path: str) -> Json:
        """The object, once somebody has made it."""
        while True:
            if (found := await unless((404,), self.get(path))) is not None:
                return found
            await asyncio.sleep(_PAUSE)

    async def create(self, path: str, obj: Json) -> Json:
        return await self._request("POST", path, obj)

    async def merge(self, path: str, patch: Json) -> Json:
        return await self._request("PATCH", path, patch, content=MERGE)

    async def delete(self, path: str, **options: Any) -> Json:
        return await self._request("DELETE", path, options or None)

    async def observe(self, path: str, handle: Handle) -> None:
        """Tells of every object there is and every change, for ever; what happened meanwhile is found out by a list."""
        known: dict[str, Json] = {}
        while True:
            try:
                version = await self._list(path, known, handle)
                while version:
                    version = await self._watch(path, version, known, handle)
            except (ApiError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_PAUSE)  # the API server is being restarted, or the namespace is not there yet

    async def _list(self, path: str, known: dict[str, Json], handle: Handle) -> str:
        listed = await self.get(path)
        kind = {"apiVersion": listed["apiVersion"], "kind": listed["kind"].removesuffix("List")}
        present = {item["metadata"]["uid"]: {**kind, **item} for item in listed["items"]}
        for uid in known.keys() - present.keys():
            handle("DELETED", known.pop(uid))
        for uid, obj in present.items():
            if uid not in known or _version(known[uid]) != _version(obj):
                handle("MODIFIED" if uid in known else "ADDED", obj)
        known.update(present)
        return _version(listed)

    async def _watch(self, path: str, version: str, known: dict[str, Json], handle: Handle) -> str:
        """Follows a watch to its end; returns where to go on, or nothing when only a list can tell."""
        query = f"watch=1&allowWatchBookmarks=true&resourceVersion={version}"
        async for event, obj in self._events(f"{path}?{query}"):
            if event == "ERROR":
                return ""
            version = _version(obj)
            if event == "BOOKMARK":
                continue
            if event == "DELETED":
                known.pop(obj["metadata"]["uid"], None)
            else:
                known[obj["metadata"]["uid"]] = obj
            handle(event, obj)
        return version

    async def _events(self, path: str) -> AsyncIterator[tuple[str, Json]]:
        async with self._answer("GET", path, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    event = json.loads(line)
                    yield event["type"], event["object"]

    async def _request(self, method: str, path: str, body: Json | None = None, *, content: str | None = None) -> Json:
        headers = {"Content-Type": content or "application/json"}
        while True:
            try:
                async with self._answer(
                    method, path, data=json.dumps(body) if body else None, headers=headers
                ) as answer:
                    found: Json = await answer.json()
                    return found
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                if not self._patient or (isinstance(error, ApiError) and error.status not in _PASSING):
                    raise
            await asyncio.sleep(_PAUSE)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._session.request(method, self._url + path, **options) as answer:
            if answer.status >= 400:
                raise refusal(answer.status, await answer.read())
            yield answer


def _version(obj: Json) -> str:
    version: str = obj["metadata"]["resourceVersion"]
    return version


async def unless(statuses: tuple[int, ...], work: Awaitable[Json]) -> Json | None:
    """What a request answers, or None when it is refused with one of these statuses."""
    try:
        return await work
    except ApiError as error:
        if error.status not in statuses:
            raise
        return None
