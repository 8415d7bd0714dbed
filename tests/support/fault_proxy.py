"""A proxy before a real API server that does what a test's rules say, and remembers what passed.

Only the client under test is pointed at it: plain HTTP on loopback in front, TLS behind. The client's own token is
passed on, so it may do what it may do anyway.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, assert_never

import aiohttp
from aiohttp import web
from support.faults import Answer, Delay, Fault, Instead, Request, Reset, Rule, Shaped, Silence, Turn, unturned
from support.loop_thread import LoopThread
from support.watch_faults import Lines, Shape, as_it_is
from yarl import URL

_HOP_BY_HOP: Final = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "keep-alive"}
_KEPT: Final = {"Content-Type", "Retry-After", "Warning"}
_REASONS: Final = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
_LARGEST_BODY: Final = 4 << 20


@dataclass(frozen=True)
class Passed:
    """A request and what came of it."""

    request: Request
    fault: Fault | None
    status: int | None
    """The API server's answer; None when it never saw the request, or gave none."""
    at: float
    """When it came, by ``time.monotonic``."""

    @property
    def happened(self) -> bool:
        """Whether the API server did what was asked, whether or not the client knows."""
        return self.status is not None and self.status < 300


class FaultProxy:
    """See the module; ``rules`` may be replaced at any time."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None) -> None:
        self.rules: Sequence[Rule] = ()
        self.passed: list[Passed] = []
        """Every request that was answered or failed, in the order of its end; watches when they begin."""
        self.url = ""
        self._upstream = upstream
        self._tls = tls
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    @property
    def writes(self) -> list[Passed]:
        """The mutating requests."""
        return [entry for entry in self.passed if entry.request.mutating]

    @property
    def counts(self) -> Counter[str]:
        """How many requests came, by verb and resource."""
        return Counter(f"{entry.request.verb} {entry.request.resource}" for entry in self.passed if _is_resource(entry))

    def forget(self) -> None:
        """Begins to count anew."""
        self.passed = []

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls or False)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        data = await incoming.read()
        request = Request(
            incoming.method, incoming.path, dict(incoming.query), incoming.headers.get("User-Agent", ""), _decoded(data)
        )
        fault = next((fault for rule in self.rules if (fault := rule(request)) is not None), None)
        exchange = _Exchange(self, incoming, data, request, fault)
        # Whoever asked may be gone by now, but what reached the API server happens.
        return await (exchange.run() if request.verb == "watch" else asyncio.shield(exchange.run()))

    @contextlib.asynccontextmanager
    async def forwarded(
        self, incoming: web.Request, data: bytes, path: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The API server's answer to a request, or to the same at another path."""
        headers = {key: value for key, value in incoming.headers.items() if key.lower() not in _HOP_BY_HOP}
        headers["Accept-Encoding"] = "identity"  # what passes is read here, and long lists would be compressed
        url = URL(self._upstream + (path or incoming.raw_path), encoded=True)
        async with self._session.request(incoming.method, url, data=data or None, headers=headers) as answer:
            yield answer


@dataclass
class _Exchange:
    """One request on its way."""

    proxy: FaultProxy
    incoming: web.Request
    data: bytes
    request: Request
    fault: Fault | None
    came: float = 0.0

    async def run(self) -> web.StreamResponse:
        """Does as the fault says."""
        self.came = time.monotonic()
        try:
            return await self._answer()
        except aiohttp.ClientError:
            # The API server is gone; so is this connection to it.
            return self._reset()

    async def _answer(self) -> web.StreamResponse:
        match self.fault:
            case None:
                return await self._pass_on()
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._pass_on()
            case Answer(status, retry_after):
                self._note(None)
                return _refusal(status, retry_after)
            case Reset(answered, hook):
                await self._perhaps_forward(answered)
                hook()
                return self._reset()
            case Silence(seconds, forwarded):
                await self._perhaps_forward(forwarded)
                await asyncio.sleep(seconds)
                return self._reset()
            case Instead(path, turn):
                return await self._forward(path, turn)
            case Shaped(shape):
                return await self._watch(shape)
        assert_never(self.fault)

    async def _pass_on(self) -> web.StreamResponse:
        return await (self._watch(as_it_is) if self.request.verb == "watch" else self._forward())

    async def _perhaps_forward(self, forwarded: bool) -> None:
        if forwarded and self.request.verb != "watch":  # a watch has no end that could be waited for
            await self._forward()
        else:
            self._note(None)

    async def _forward(self, path: str | None = None, turn: Turn = unturned) -> web.Response:
        async with self.proxy.forwarded(self.incoming, self.data, path) as answer:
            status, data = turn(answer.status, await answer.read())
            self._note(answer.status)
            return web.Response(status=status, body=data, headers=_kept(answer))

    async def _watch(self, shape: Shape) -> web.StreamResponse:
        async with self.proxy.forwarded(self.incoming, self.data) as answer:
            self._note(answer.status)
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), headers=_kept(answer))
            response = web.StreamResponse(headers=_kept(answer))
            await response.prepare(self.incoming)
            lines = Lines()
            pump = asyncio.create_task(lines.pump(_lines(answer)))
            try:
                async for line in shape(lines):
                    await response.write(line)
            finally:
                pump.cancel()
            await response.write_eof()
            return response

    def _note(self, status: int | None) -> None:
        self.proxy.passed.append(Passed(self.request, self.fault, status, self.came))

    def _reset(self) -> web.StreamResponse:
        transport = self.incoming.transport
        if transport is not None:
            # Without lingering, closing sends RST instead of FIN.
            client: socket.socket = transport.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return web.Response()


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a body, of any length."""
    rest = b""
    with contextlib.suppress(aiohttp.ClientError):
        async for chunk in answer.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {key: value for key, value in answer.headers.items() if key in _KEPT}


def _decoded(data: bytes) -> dict[str, object] | list[object] | None:
    decoded: dict[str, object] | list[object] | None = json.loads(data) if data[:1] in (b"{", b"[") else None
    return decoded


def _refusal(status: int, retry_after: int | None) -> web.Response:
    reason = _REASONS.get(status, "Unknown")
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "as the test wants it"}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response({**body, "reason": reason, "code": status}, status=status, headers=headers)


def _is_resource(entry: Passed) -> bool:
    return bool(entry.request.resource)


@contextmanager
def fault_proxy(upstream: str, tls: ssl.SSLContext | None, *rules: Rule) -> Iterator[FaultProxy]:
    """A running proxy."""
    with LoopThread("fault-proxy") as loop:
        proxy = FaultProxy(upstream, tls)
        proxy.rules = rules
        loop.call(proxy.start())
        try:
            yield proxy
        finally:
            loop.call(proxy.stop())
