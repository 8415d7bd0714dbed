"""What running stages tell of their progress, and what becomes of pods that tell nonsense or nothing."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from posttrain_contract import layout
from posttrain_contract.progress import Progress
from posttrain_operator import telemetry
from posttrain_operator.cluster import Json
from posttrain_operator.telemetry import Telemetry
from support.scripted_server import Handler, half, reset, serving

INTERVAL = 10.0


def answer(step: int) -> str:
    return Progress(phase="training", step=step, updated_at=1.0).model_dump_json(by_alias=True)


def pod(name: str = "x-0", uid: str = "1", ip: str | None = "127.0.0.1") -> Json:
    return {"metadata": {"name": name, "namespace": "team", "uid": uid}, "status": {"podIP": ip} if ip else {}}


@dataclass
class Scene:
    """One operator that asks, and one server that every pod's address leads to."""

    now: float = 0.0
    news: list[str] = field(default_factory=list)
    asked: int = 0
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(timedelta(seconds=INTERVAL), news=self._tell, clock=lambda: self.now)

    def _tell(self, raw: Json) -> None:
        self.news.append(raw["metadata"]["uid"])

    def step(self, raw: Json | None = None) -> int | None:
        """The step that a pod has told; this may ask it again."""
        told = self.telemetry.latest(raw or pod())
        return told.step if told is not None else None

    async def asked_once_more(self, raw: Json | None = None) -> int | None:
        """Asks a pod after an interval and waits until it has answered, or failed to."""
        self.now += INTERVAL
        self.step(raw)
        await until(lambda: not self.telemetry._tasks)
        return self.step(raw)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the thing under test tells nobody
            await asyncio.sleep(0.005)


def with_pods(handler: Handler, work: Callable[[Scene], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()

    async def counting(request: web.BaseRequest) -> web.StreamResponse:
        scene.asked += 1
        assert request.path == "/progress"
        return await handler(request)

    async def run() -> None:
        async with at_the_port(counting, monkeypatch):
            try:
                await work(scene)
            finally:
                await scene.telemetry.close()

    asyncio.run(run())
    return scene


@asynccontextmanager
async def at_the_port(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    async with serving(handler) as url:
        monkeypatch.setattr(layout, "TELEMETRY_PORT", urlsplit(url).port)
        yield


def telling(*texts: str | bytes, **options: Any) -> Handler:
    """Tells one after the other, the last one for ever."""
    left = list(texts)

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        text = left.pop(0) if len(left) > 1 else left[0]
        body = text.encode() if isinstance(text, str) else text
        return web.Response(body=body, **options)

    return handler


# A pod that answers.


def test_the_answer_is_there_at_the_next_look_and_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        assert scene.step() is None, "nobody waits for a pod"
        await until(lambda: bool(scene.news))
        assert scene.step() == 7

    assert with_pods(telling(answer(7)), work, monkeypatch).news == ["1"]


def test_a_pod_is_asked_again_after_the_interval_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        assert await scene.asked_once_more() == 1
        for _ in range(100):
            scene.now += INTERVAL / 101
            assert scene.step() == 1
        assert scene.asked == 1
        assert await scene.asked_once_more() == 2
        assert scene.asked == 2

    with_pods(telling(answer(1), answer(2)), work, monkeypatch)


def test_only_a_change_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        for _ in range(5):
            await scene.asked_once_more()

    scene = with_pods(telling(answer(1), answer(1), answer(2), answer(2)), work, monkeypatch)
    assert (scene.asked, scene.news) == (5, ["1", "1"])


def test_a_pod_without_an_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        assert await scene.asked_once_more(pod(ip=None)) is None
        assert await scene.asked_once_more(pod()) == 1, "as soon as it has one"

    assert with_pods(telling(answer(1)), work, monkeypatch).asked == 1


# Pods belong to their users.


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def silent(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def flood(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


NONSENSE: dict[str, Handler] = {
    "garbage": telling(b"\x00\xff\xfe"),
    "nothing": telling(""),
    "no object": telling("[1, 2, 3]"),
    "deep": telling("[" * 60_000),
    "another object": telling('{"phase": "x"}'),
    "not a number": telling(json.dumps({"phase": "x", "step": 1, "updatedAt": float("nan")})),
    "an error": telling("<html>", status=500),
    "huge": telling(" " * 1_000_000 + answer(9)),
    "endless": endless,
    "flood": flood,
    "silent": silent,
    "reset": reset,
    "half": half,
    "bomb": telling(gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"}),
    "packed": telling(gzip.compress(answer(9).encode()), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = True

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal first
        sound, first = first, False
        return await (telling(answer(7)) if sound else NONSENSE[kind])(request)

    async def work(scene: Scene) -> None:
        assert await scene.asked_once_more() == 7
        monkeypatch.setattr(telemetry, "_TIMEOUT", aiohttp.ClientTimeout(total=0.3))
        assert await scene.asked_once_more() == 7
        assert await scene.asked_once_more() == 7, "and it is asked again"

    scene = with_pods(handler, work, monkeypatch)
    assert scene.news == ["1"]
    assert scene.asked >= 3, "a client asks twice where a connection that it knows is reset"


def test_a_pod_cannot_lead_the_operator_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    visited: list[str] = []

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        visited.append(request.path)
        return web.Response(text=answer(9))

    async def work(scene: Scene) -> None:
        assert await scene.asked_once_more() is None

    async def run() -> None:
        async with serving(elsewhere) as url:
            redirect = telling("", status=302, headers={"Location": f"{url}/latest/meta-data"})
            async with at_the_port(redirect, monkeypatch):
                scene = Scene()
                await work(scene)
                await scene.telemetry.close()

    asyncio.run(run())
    assert visited == []


def test_what_a_pod_wants_remembered_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cookies: list[str | None] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(text=answer(1), headers={"Set-Cookie": "a=b"})

    async def work(scene: Scene) -> None:
        await scene.asked_once_more()
        await scene.asked_once_more()

    with_pods(handler, work, monkeypatch)
    assert cookies == [None, None]


def test_every_question_has_a_limit_in_time() -> None:
    assert telemetry._TIMEOUT.total == 5


# Many pods.


def test_a_number_of_pods_is_asked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = 0
    free = asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == telemetry._AT_ONCE:
            free.set()
        await free.wait()
        under_way -= 1
        return web.Response(text=answer(1))

    async def work(scene: Scene) -> None:
        for number in range(300):
            scene.step(pod(f"x-{number}", uid=str(number)))
        await until(lambda: len(scene.news) == 300)

    with_pods(handler, work, monkeypatch)
    assert most == telemetry._AT_ONCE


def test_a_pod_that_has_not_answered_yet_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        for _ in range(50):
            scene.now += INTERVAL
            scene.step()
            await asyncio.sleep(0)
        await until(lambda: scene.asked > 0)
        assert len(scene.telemetry._tasks) == 1

    assert with_pods(silent, work, monkeypatch).asked == 1


# Pods that go.


def test_a_successor_of_the_same_name_has_told_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        assert await scene.asked_once_more(pod(uid="1")) == 7
        assert scene.step(pod(uid="2")) is None
        await until(lambda: scene.news == ["1", "2"])
        assert scene.step(pod(uid="2")) == 8
        assert len(scene.telemetry._pods) == 1

    with_pods(telling(answer(7), answer(8)), work, monkeypatch)


def test_of_a_pod_that_is_gone_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        await scene.asked_once_more()
        scene.telemetry.forget(pod())
        scene.telemetry.forget(pod())
        assert scene.telemetry._pods == {}

    with_pods(telling(answer(7)), work, monkeypatch)


def test_the_end_of_a_predecessor_is_not_the_end_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        assert await scene.asked_once_more(pod(uid="2")) == 7
        scene.telemetry.forget(pod(uid="1"))
        assert scene.step(pod(uid="2")) == 7

    with_pods(telling(answer(7)), work, monkeypatch)


def test_an_answer_of_a_pod_that_is_gone_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await gone.wait()
        return web.Response(text=answer(1))

    async def work(scene: Scene) -> None:
        scene.step()
        await asked.wait()
        scene.telemetry.forget(pod())
        gone.set()
        await until(lambda: not scene.telemetry._tasks)
        assert scene.telemetry._pods == {}

    assert with_pods(handler, work, monkeypatch).news == []


def test_at_the_end_nothing_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        for number in range(100):
            scene.step(pod(f"x-{number}"))
        await until(lambda: scene.asked > 0)
        questions = set(scene.telemetry._tasks)
        assert len(questions) == 100
        await scene.telemetry.close()
        assert all(question.done() for question in questions)

    with_pods(silent, work, monkeypatch)
