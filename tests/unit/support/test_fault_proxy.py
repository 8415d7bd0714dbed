"""The fault proxy before a small server: each fault is what a client of a broken API server would see."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.fault_proxy import FaultProxy, fault_proxy
from support.faults import (
    Answer,
    Delay,
    DenyTwice,
    Fault,
    Instead,
    Nth,
    Request,
    Reset,
    Rule,
    Silence,
    Sometimes,
    Watches,
)
from support.loop_thread import LoopThread
from support.stale_view import PROBE, StaleView
from support.waiting import wait_for
from support.watch_faults import Shape, chained, cut, dropping_each_once, gone, reordered, silent

COLLECTION = "/api/v1/namespaces/team/configmaps"
WATCH = f"{COLLECTION}?watch=1"


class Upstream:
    """Answers everything with what it was asked, and watches with a few events and then nothing."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.events = [event("MODIFIED", name, version) for version in (1, 2, 3) for name in "abcdefgh"]
        self.url = ""
        self._runner: web.AppRunner

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.raw_path}")
        if "watch" not in request.query:
            return web.json_response({"asked": request.raw_path, "token": request.headers.get("Authorization")})
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self.events:
            await response.write(json.dumps(line).encode() + b"\n")
        await asyncio.Event().wait()
        return response


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    with LoopThread("upstream") as loop:
        loop.call(server.start())
        yield server
        loop.call(server.stop())


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with fault_proxy(upstream.url, None) as proxy:
        yield proxy


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"uid": f"uid-{name}", "name": name, "resourceVersion": str(version)}}}


def ask(proxy: FaultProxy, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """One request on a connection of its own."""

    async def work() -> tuple[int, dict[str, Any]]:
        async with (
            aiohttp.ClientSession(headers={"Authorization": "Bearer mine"}) as session,
            session.request(method, proxy.url + path, json=body) as answer,
        ):
            return answer.status, {**await answer.json(), "retryAfter": answer.headers.get("Retry-After")}

    return asyncio.run(work())


def watch(proxy: FaultProxy, seconds: float = 0.5) -> tuple[list[str], bool]:
    """The events of a watch as TYPE NAME VERSION, and whether it ended by itself within that time."""
    seen: list[str] = []

    async def work() -> None:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession() as session, session.get(proxy.url + WATCH, timeout=timeout) as answer:
            async for line in answer.content:
                found = json.loads(line)
                metadata = found["object"].get("metadata", {})
                seen.append(f"{found['type']} {metadata.get('name')} {metadata.get('resourceVersion')}")

    try:
        asyncio.run(work())
    except TimeoutError:
        return seen, False
    return seen, True


def all_events(upstream: Upstream) -> list[str]:
    return [
        f"MODIFIED {line['object']['metadata']['name']} {line['object']['metadata']['resourceVersion']}"
        for line in upstream.events
    ]


def test_without_rules_everything_passes_with_the_clients_own_token(proxy: FaultProxy, upstream: Upstream) -> None:
    status, body = ask(proxy, "GET", f"{COLLECTION}?labelSelector=a%3Db&limit=1")
    assert status == 200
    assert body["asked"] == f"{COLLECTION}?labelSelector=a%3Db&limit=1"
    assert body["token"] == "Bearer mine"
    assert watch(proxy) == (all_events(upstream), False)


@pytest.mark.parametrize(
    ("asked", "understood"),
    [
        ("GET /api/v1/pods?watch=true", "watch pods  "),
        ("GET /api/v1/pods", "list pods  "),
        ("GET /api/v1/namespaces/team", "get namespaces  team"),
        (f"POST {COLLECTION}", "create configmaps team new"),
        (f"DELETE {COLLECTION}", "deletecollection configmaps team "),
        (f"GET {COLLECTION}/a", "get configmaps team a"),
        ("PATCH /apis/posttrain.dev/v1alpha1/namespaces/team/rljobs/x/status", "patch rljobs/status team x"),
        ("GET /apis/posttrain.dev/v1alpha1/rljobs", "list rljobs  "),
        ("GET /version", "get   "),
    ],
)
def test_requests_are_named_as_in_rbac(asked: str, understood: str) -> None:
    method, path, query = re.fullmatch(r"(\w+) ([^?]+)\??(.*)", asked).groups()  # type: ignore[union-attr]
    body: dict[str, Any] | None = {"metadata": {"name": "new"}} if method == "POST" else None
    found = Request(method, path, dict([query.split("=")] if query else []), body=body)
    assert f"{found.verb} {found.resource} {found.namespace} {found.name}" == understood


def test_writes_are_remembered_in_order_and_counted(proxy: FaultProxy) -> None:
    ask(proxy, "POST", COLLECTION, {"metadata": {"name": "a"}})
    ask(proxy, "GET", f"{COLLECTION}/a")
    ask(proxy, "DELETE", f"{COLLECTION}/a")
    assert [str(entry.request) for entry in proxy.writes] == ["create configmaps/a", "delete configmaps/a"]
    assert all(entry.happened for entry in proxy.writes)
    assert proxy.counts == {"create configmaps": 1, "get configmaps": 1, "delete configmaps": 1}


def test_the_same_said_later_has_the_same_digest() -> None:
    def digest(body: Any) -> str:
        return Request("PATCH", f"{COLLECTION}/a", body=body).digest

    early = {"metadata": {"resourceVersion": "1"}, "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}}
    late = {"metadata": {"resourceVersion": "9"}, "status": {"phase": "Running", "startTime": "2026-01-01T00:00:07Z"}}
    assert digest(early) == digest(late)
    assert digest(early) != digest({**late, "status": {"phase": "Failed"}})
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": "1"}
    change = {"op": "replace", "path": "/status", "value": {"phase": "Running"}}
    assert digest([test, change]) == digest([{**test, "value": "2"}, change])


@pytest.mark.parametrize(("fault", "forwarded"), [(Answer(429, retry_after=3), False), (Answer(503), False)])
def test_an_answer_comes_instead_of_the_api_servers(
    proxy: FaultProxy, upstream: Upstream, fault: Answer, forwarded: bool
) -> None:
    proxy.rules = [lambda _: fault]
    status, body = ask(proxy, "POST", COLLECTION, {})
    assert (status, body["code"]) == (fault.status, fault.status)
    assert body["retryAfter"] == (str(fault.retry_after) if fault.retry_after else None)
    assert bool(upstream.seen) is forwarded
    assert not proxy.writes[0].happened


@pytest.mark.parametrize("answered", [False, True])
def test_a_reset_hides_whether_the_write_happened(proxy: FaultProxy, upstream: Upstream, answered: bool) -> None:
    known: list[int] = []
    proxy.rules = [lambda _: Reset(answered=answered, hook=lambda: known.append(len(upstream.seen)))]
    with pytest.raises(aiohttp.ClientOSError):
        ask(proxy, "POST", COLLECTION, {"metadata": {"name": "a"}})
    assert known == [int(answered)], "the hook is called once, after what was to be forwarded"
    assert proxy.writes[0].happened is answered


@pytest.mark.parametrize("fault", [Reset(answered=True), Silence(0.1, forwarded=True)])
def test_a_watch_is_reset_too(proxy: FaultProxy, fault: Fault) -> None:
    proxy.rules = [lambda _: fault]
    with pytest.raises(aiohttp.ClientOSError):
        watch(proxy, 10)


@pytest.mark.parametrize("forwarded", [False, True])
def test_silence_is_no_answer(proxy: FaultProxy, upstream: Upstream, forwarded: bool) -> None:
    proxy.rules = [lambda _: Silence(0.3, forwarded=forwarded)]
    begin = time.monotonic()
    with pytest.raises(aiohttp.ClientOSError):
        ask(proxy, "POST", COLLECTION, {})
    assert time.monotonic() - begin > 0.25
    assert bool(upstream.seen) is forwarded


def test_a_delay_only_costs_time(proxy: FaultProxy) -> None:
    proxy.rules = [lambda _: Delay(0.2)]
    begin = time.monotonic()
    assert ask(proxy, "GET", COLLECTION)[0] == 200
    assert time.monotonic() - begin >= 0.2


def test_another_request_can_be_asked_instead(proxy: FaultProxy) -> None:
    proxy.rules = [lambda _: Instead("/other", lambda status, data: (status + 1, data))]
    status, body = ask(proxy, "GET", COLLECTION)
    assert (status, body["asked"]) == (201, "/other")


def test_a_dead_api_server_resets(proxy: FaultProxy) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = "http://{}:{}".format(*free.getsockname())
    with fault_proxy(nobody, None) as lonely, pytest.raises(aiohttp.ClientOSError):
        ask(lonely, "GET", COLLECTION)


def test_the_nth_write_is_hit_and_no_other(proxy: FaultProxy) -> None:
    rule = Nth({2}, Answer(500))
    proxy.rules = [rule]
    ask(proxy, "POST", "/apis/coordination.k8s.io/v1/namespaces/team/leases", {})
    ask(proxy, "GET", COLLECTION)
    assert [ask(proxy, "POST", COLLECTION, {})[0] for _ in range(3)] == [200, 500, 200]
    assert rule.done


def test_a_rate_is_kept_and_a_seed_repeats_it() -> None:
    def fates(seed: int) -> list[Fault | None]:
        rule = Sometimes(0.3, (Answer(500), Answer(503)), seed)
        return [rule(Request("GET", f"{COLLECTION}/{number}")) for number in range(1000)]

    hit = [fate for fate in fates(1) if fate is not None]
    assert 250 < len(hit) < 350
    assert set(hit) == {Answer(500), Answer(503)}
    assert fates(1) == fates(1)
    assert fates(1) != fates(2)


def test_every_change_is_denied_twice() -> None:
    rule = DenyTwice(Answer(503))
    fates = [rule(Request("PATCH", f"{COLLECTION}/a", body={"data": value})) for value in "112213"]
    assert [fate is not None for fate in fates] == [True, True, True, True, False, True]
    assert rule(Request("GET", COLLECTION)) is None


def shaped(shape: Shape) -> list[Rule]:
    return [Watches(shape)]


def test_a_watch_is_cut(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.rules = shaped(cut(0.2))
    assert watch(proxy, 10) == (all_events(upstream), True)


def test_a_watch_says_gone(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.rules = shaped(gone(0.2))
    assert watch(proxy, 10) == ([*all_events(upstream), "ERROR None None"], True)


def test_a_silent_watch_stays_open(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.rules = shaped(silent(0))
    assert watch(proxy) == ([], False)


def test_every_event_is_dropped_once(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.rules = shaped(dropping_each_once(lambda line: line["object"]["metadata"]["name"] != "b"))
    assert watch(proxy) == ([line for line in all_events(upstream) if " b " in line], False)
    assert watch(proxy) == (all_events(upstream), False)


def test_shapes_can_be_chained(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.rules = shaped(chained(dropping_each_once(lambda line: line["object"]["metadata"]["name"] != "b"), cut(0.2)))
    assert watch(proxy, 10) == ([line for line in all_events(upstream) if " b " in line], True)


def test_events_of_different_objects_change_places(proxy: FaultProxy, upstream: Upstream) -> None:
    in_order = all_events(upstream)
    upstream.events.append({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "3"}}})
    proxy.rules = shaped(reordered(0.2))
    *seen, last = watch(proxy, 1)[0]
    assert last == "BOOKMARK None 3", "it promises that everything before it was seen"
    assert seen != in_order
    assert sorted(seen) == sorted(in_order)
    for name in "abcdefgh":
        assert [line[-1] for line in seen if f" {name} " in line] == ["1", "2", "3"]


class Versions:
    """A store whose newest version a test sets."""

    def __init__(self) -> None:
        self.newest = 1

    def ask(self, path: str) -> dict[str, Any]:
        assert path == PROBE
        return {"metadata": {"resourceVersion": str(self.newest)}}


def stale(view: StaleView, path: str, **query: str) -> str:
    fault = view(Request("GET", path, query))
    assert isinstance(fault, Instead)
    return fault.path


def test_a_stale_view_asks_for_what_was_newest_then() -> None:
    view, versions = StaleView(0.5), Versions()
    with view.recording(versions.ask):
        assert view.version == 1
        versions.newest = 7
        changed = time.monotonic()
        assert "resourceVersion=1&" in stale(view, COLLECTION, resourceVersion="0")
        wait_for(lambda: view.version == 7, "the view to move on", seconds=10)
        assert time.monotonic() - changed >= 0.5
        assert stale(view, COLLECTION, limit="5") == (
            f"{COLLECTION}?limit=5&resourceVersion=7&resourceVersionMatch=Exact"
        )
        assert "fieldSelector=metadata.name%3Da" in stale(view, f"{COLLECTION}/a")
    assert view(Request("PATCH", f"{COLLECTION}/a")) is None
    assert view(Request("GET", "/apis/coordination.k8s.io/v1/namespaces/team/leases/x")) is None


@pytest.mark.parametrize(
    ("items", "status", "kind"), [([], 404, "Status"), ([{"metadata": {"name": "a"}}], 200, "ConfigMap")]
)
def test_a_stale_get_is_a_list_of_one(items: list[dict[str, Any]], status: int, kind: str) -> None:
    view, versions = StaleView(0), Versions()
    with view.recording(versions.ask):
        fault = view(Request("GET", f"{COLLECTION}/a"))
    assert isinstance(fault, Instead)
    answer = json.dumps({"kind": "ConfigMapList", "apiVersion": "v1", "items": items}).encode()
    code, body = fault.turn(200, answer)
    assert (code, json.loads(body)["kind"]) == (status, kind)
    assert fault.turn(403, b"{}") == (403, b"{}")


def test_a_stale_watch_holds_events_back(proxy: FaultProxy, upstream: Upstream) -> None:
    view, versions = StaleView(0), Versions()
    with view.recording(versions.ask):
        proxy.rules = [view]
        assert watch(proxy) == (all_events(upstream)[:8], False)
        versions.newest = 3
        wait_for(lambda: view.version == 3, "the record")
        assert watch(proxy) == (all_events(upstream), False)
