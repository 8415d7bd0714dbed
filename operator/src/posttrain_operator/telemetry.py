"""What running stages tell at /progress: asked in the background, so that a silent pod holds nobody up."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import aiohttp
from posttrain_contract import layout
from posttrain_contract.progress import Progress
from pydantic import ValidationError

from posttrain_operator.cluster import Json

_AT_ONCE: Final = 64
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_LARGEST: Final = 64 * 1024
"""Bytes of an answer; a stage's is a few hundred."""
_PLAIN: Final = {"Accept-Encoding": "identity"}
_log = logging.getLogger(__name__)


@dataclass
class _Pod:
    uid: str
    asked: float = float("-inf")
    asking: bool = False
    answer: Progress | None = None


@dataclass
class Telemetry:
    """The newest answer of every running pod."""

    interval: timedelta
    news: Callable[[Json], None] = lambda _: None
    """Called with the pod when it has told something new."""
    clock: Callable[[], float] = time.monotonic
    _pods: dict[tuple[str, str], _Pod] = field(default_factory=dict)
    """By namespace and name, so that a pod's successor takes its place."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _session: aiohttp.ClientSession | None = None

    def latest(self, pod: Json) -> Progress | None:
        """What the pod told last; asks it again when that is an interval ago."""
        key, uid, now = _key(pod), pod["metadata"]["uid"], self.clock()
        known = self._pods.get(key)
        if known is None or known.uid != uid:
            known = self._pods[key] = _Pod(uid)
        ip = (pod.get("status") or {}).get("podIP")
        if ip and not known.asking and now - known.asked >= self.interval.total_seconds():
            known.asked, known.asking = now, True
            task = asyncio.get_running_loop().create_task(self._ask(pod, ip, known))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return known.answer

    def forget(self, pod: Json) -> None:
        """The pod is gone."""
        known = self._pods.get(_key(pod))
        if known is not None and known.uid == pod["metadata"]["uid"]:
            del self._pods[_key(pod)]

    async def close(self) -> None:
        """Stops asking."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _ask(self, pod: Json, ip: str, known: _Pod) -> None:
        try:
            async with self._slots:
                answer = await self._answer(ip)
        except (TimeoutError, aiohttp.ClientError, OSError, ValidationError) as error:
            _log.debug("no progress from pod %s: %s", pod["metadata"]["name"], error)
            return
        finally:
            known.asking = False
        if self._pods.get(_key(pod)) is known and known.answer != answer:
            known.answer = answer
            self.news(pod)

    async def _answer(self, ip: str) -> Progress:
        """What a pod answers now. It belongs to its user: it may not lead us elsewhere, nor unpack into memory."""
        if self._session is None:
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(trust_env=False, auto_decompress=False, cookie_jar=jar)
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{layout.TELEMETRY_PORT}/progress"
        async with self._session.get(url, allow_redirects=False, headers=_PLAIN, timeout=_TIMEOUT) as response:
            return Progress.model_validate_json(await _bounded(response.content))


def _key(pod: Json) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """The body, as far as a stage's answer may reach: pods belong to their users."""
    body = b""
    while len(body) < _LARGEST and (part := await content.read(_LARGEST - len(body))):
        body += part
    return body
