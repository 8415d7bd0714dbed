"""The middleware in front of vLLM: the key on every route, and no route but the listed ones."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from posttrain_runtime.keys import authorization
from posttrain_serve.guard import KEY_VARIABLE, ROUTES, Guard

KEY = "key-of-this-run"


def answer(monkeypatch: pytest.MonkeyPatch, method: str, path: str, *headers: tuple[bytes, bytes]) -> int:
    """The status that a request gets; 200 is the application's own."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    sent: list[MutableMapping[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(Guard(app)(scope, receive, send))
    return int(sent[0]["status"])


def header(value: str = authorization(KEY)) -> tuple[bytes, bytes]:
    return b"authorization", value.encode()


@pytest.mark.parametrize(("method", "path"), sorted(ROUTES))
def test_a_listed_route_needs_the_key(monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    assert answer(monkeypatch, method, path, header()) == 200
    assert answer(monkeypatch, method, path) == 401
    for wrong in ("", KEY, "Bearer ", f"Bearer {KEY} ", f"bearer {KEY}", "Bearer other"):
        assert answer(monkeypatch, method, path, header(wrong)) == 401
    assert answer(monkeypatch, method, path, header(), header()) == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/collective_rpc"),
        ("POST", "/v1/load_lora_adapter"),
        ("GET", "/v1/completions"),
        ("POST", "/health"),
        ("GET", "/health/"),
        ("POST", "/v1/completions/../../collective_rpc"),
        ("GET", "/docs"),
    ],
)
def test_a_route_that_is_not_listed_is_closed_with_the_key_too(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    assert answer(monkeypatch, method, path, header()) == 404
    assert answer(monkeypatch, method, path) == 401


def test_a_websocket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    sent: list[MutableMapping[str, Any]] = []

    async def app(*_: Any) -> None:
        raise AssertionError("reached the application")

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Guard(app)({"type": "websocket", "path": "/health", "headers": [header()]}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
