"""The ASGI middleware in front of vLLM: the run's key on every route, and only the routes that a trainer needs.

vLLM's own API key covers the /v1 routes alone, and its development routes run code for whoever asks.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from posttrain_runtime.keys import HEADER, authorization

KEY_VARIABLE = "POSTTRAIN_SERVER_SECRET"
"""The key reaches the server process in this environment variable, which the logs redact."""

ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/get_world_size"),
        ("GET", "/weight_info"),
        ("POST", "/v1/completions"),
        ("POST", "/init_weight_transfer_engine"),
        ("POST", "/start_weight_update"),
        ("POST", "/update_weights"),
        ("POST", "/finish_weight_update"),
        ("POST", "/reset_prefix_cache"),
    }
)
"""Methods and paths that are let through; everything else is answered with 404."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """Lets a request through when it carries the key and asks for a listed route."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._expected = authorization(os.environ[KEY_VARIABLE]).encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._has_key(scope):
            await _refuse(send, 401, b"this route needs the key of the run\n")
        elif (scope["method"], scope["path"]) not in ROUTES:
            await _refuse(send, 404, b"this route is closed\n")
        else:
            await self._app(scope, receive, send)

    def _has_key(self, scope: Message) -> bool:
        """Whether the key is there; the time taken does not tell how much of it was right."""
        name = HEADER.lower().encode()
        given = [value for header, value in scope["headers"] if header == name]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def _refuse(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
