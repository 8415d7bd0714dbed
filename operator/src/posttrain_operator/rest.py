"""Requests to the API server: one connection pool, a time limit on each, and errors named by what they are."""

import asyncio
import copy
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubernetes_config

from posttrain_operator import metrics
from posttrain_operator.cluster import Json
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.server_clock import ServerClock
from posttrain_operator.watched import Api

CONNECTIONS: Final = 32
"""Requests under way at a time."""
TIMEOUT: Final = 15.0
"""Seconds for one request, retries not included."""
PAGE: Final = 500
"""Objects in one page of a list."""
_BUSY: Final = 429
_TRY_AGAIN: Final = (401, 408, _BUSY)
"""Refusals that pass: credentials are renewed, and the API server sheds load."""
NOT_FOUND: Final = 404
CONFLICT: Final = 409
_EXPIRED: Final = 410
_NO_SUCH_PATH: Final = b"404 page not found"
"""How the API server answers, without an object, when it does not know the group of a kind."""
_RESTARTS: Final = 5
"""How often one list may expire on the way."""
_EXCERPT: Final = 200
"""Bytes of an answer that are shown when they are no object."""
_LONGEST_WAIT: Final = 300
"""Seconds that an API server may make us wait."""
_PAUSES: Final = (0.1, 0.4)
"""Seconds before a request is sent once more that failed as such things do for a moment."""
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for an object's metadata alone: what was written is known, and a PyTorchJob is large."""
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"


class RefusedError(Exception):
    """The API server answers that it will not do it; ``code`` and ``message`` say why."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


class _PassingError(ApiUnavailable):
    """It may be over in a moment."""


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: list[Json]
    version: int
    """The resource version of the whole list."""


@dataclass
class Rest:
    """Speaks to one API server. Raises ``ApiUnavailable`` when it does not answer, and ``RefusedError``."""

    configuration: kubernetes.Configuration
    may_write: Callable[[], None] = lambda: None
    """Asked before each write, and again when its bytes go out; raises when it must not."""
    clock: ServerClock = field(default_factory=ServerClock)
    """Kept right by every answer."""
    _client: kubernetes.ApiClient = field(init=False)

    def __post_init__(self) -> None:
        # A copy: what is asked before a write differs between those who speak to one API server.
        self.configuration = copy.copy(self.configuration)
        self.configuration.connection_pool_maxsize = CONNECTIONS
        self.configuration.client_side_validation = False
        self.configuration.client_session_kwargs = {"request_class": _guarded(self.may_write)}
        self._client = kubernetes.ApiClient(self.configuration)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()

    async def get(self, path: str) -> Json:
        """One object."""
        return await self.request("GET", path)

    async def post(self, path: str, body: Json) -> Json:
        """Creates an object and returns its metadata as stored."""
        return _metadata(await self.request("POST", path, body=body, accept=METADATA))

    async def patch(self, path: str, body: Json) -> Json:
        """Merges into an object and returns its metadata; with a resourceVersion in the body, only if it has that."""
        return _metadata(await self.request("PATCH", path, body=body, content=MERGE, accept=METADATA))

    async def apply(self, path: str, body: Json) -> Json:
        """Server-side applies an object and returns its metadata."""
        return _metadata(await self.request("PATCH", path, body=body, content=APPLY, accept=METADATA))

    async def put(self, path: str, body: Json) -> Json:
        """Replaces an object that has the resourceVersion of the body."""
        return await self.request("PUT", path, body=body)

    async def delete(self, path: str, *, uid: str) -> Json:
        """Deletes an object if it has this uid; its dependents follow in the background."""
        return await self.request(
            "DELETE", path, body={"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        )

    async def pages(
        self, api: Api, *, namespace: str = "", selector: str | None = None, accept: str = "application/json"
    ) -> AsyncIterator[Page]:
        """Every object of a kind, page by page; of a list that expires on the way, the rest is asked for anew."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        token, restarts = "", 0
        while True:
            try:
                path = f"{api.path(namespace)}?{urlencode({**query, **({'continue': token} if token else {})})}"
                answer = await self.request("GET", path, accept=accept)
            except RefusedError as refused:
                if refused.code != _EXPIRED or not token or restarts == _RESTARTS:
                    raise
                token, restarts = "", restarts + 1
                continue
            yield _page(api, answer)
            token = answer["metadata"].get("continue") or ""
            if not token:
                return

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        """One request, answered with a Kubernetes object.

        It is sent again at once when that may help, because a pass that is repeated costs more. Every write may be:
        the API server refuses one that it has done already, by the name, the uid or the resource version in it.
        """
        send = partial(self._send, method, path, body=body, content=content, accept=accept)
        for pause in _PAUSES:
            try:
                return await send()
            except _PassingError:
                await asyncio.sleep(pause)
        return await send()

    async def _send(self, method: str, path: str, *, body: Any, content: str, accept: str) -> Json:
        what = f"{method} {path.partition('?')[0]}"
        token = await self._token()
        headers = {"Accept": accept, "Content-Type": content, **({"Authorization": token} if token else {})}
        if method != "GET":
            self.may_write()
        began = time.perf_counter()
        code = 0
        try:
            answer = await self._client.rest_client.request(
                method, self.configuration.host + path, headers=headers, body=body, _request_timeout=_LIMIT
            )
            code = answer.status
            self.clock.heard(answer.headers.get("Date"), seconds=time.perf_counter() - began)
            data = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            unavailable = ApiUnavailable if isinstance(error, TimeoutError) else _PassingError
            raise unavailable(f"{what}: {type(error).__name__}: {error}") from error
        finally:
            metrics.request(method, code, time.perf_counter() - began)
        return _read(code, data, answer.headers, what=what, token=token)

    async def _token(self) -> str:
        """The value of the Authorization header, renewed where it has run out; empty where certificates do."""
        try:
            return await self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        except (kubernetes_config.ConfigException, OSError) as error:
            raise ApiUnavailable(f"there are no credentials: {error}") from error


def _guarded(may_write: Callable[[], None]) -> type[aiohttp.ClientRequest]:
    """A request that asks once more when it has its connection: a process may have been stopped on the way there."""

    class GuardedRequest(aiohttp.ClientRequest):
        async def write_bytes(
            self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
        ) -> None:
            if self.method != "GET":
                try:
                    may_write()
                except ApiUnavailable:
                    # Whoever waits for the answer learns that the connection is lost, and asks before it tries again.
                    conn.close()
                    return
            await super().write_bytes(writer, conn, content_length)

    return GuardedRequest


_LIMIT: Final = aiohttp.ClientTimeout(total=TIMEOUT)


def unexpected(refused: RefusedError) -> ApiUnavailable:
    """A refusal that says that the installation is wrong, such as a missing permission: worth another try."""
    return ApiUnavailable(f"{refused.code} {refused.reason}: {refused.message}")


class NoClusterError(Exception):
    """Nothing says how the API server is reached."""


async def load_configuration() -> kubernetes.Configuration:
    """How the API server is reached: by KUBECONFIG or ~/.kube/config, else by the pod's service account.

    Raises ``NoClusterError``.
    """
    configuration = kubernetes.Configuration()
    files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        if _any_exists(files):
            await kubernetes_config.load_kube_config(config_file=files, client_configuration=configuration)
        else:
            kubernetes_config.load_incluster_config(client_configuration=configuration)
    except kubernetes_config.ConfigException as error:
        message = f"no cluster: {error}; set KUBECONFIG to a file that names one, found {files}"
        raise NoClusterError(message) from error
    except Exception as error:  # the client takes the form of a file on trust
        message = f"no cluster: {files} is no kubeconfig: {type(error).__name__}; set KUBECONFIG to one"
        raise NoClusterError(message) from error
    return configuration


def _any_exists(files: str) -> bool:
    return any(Path(file).is_file() for file in files.split(os.pathsep))


def _read(code: int, data: bytes, headers: Mapping[str, str], *, what: str, token: str) -> Json:
    """The answer's object. Raises what an answer that is none means.

    Only the API server itself can refuse: what a proxy in front of it says of a path is no word of an object.
    """
    body = _object(data)
    if code < 300 and isinstance(body.get("metadata"), dict):
        return body
    told = str(body.get("message") or data[:_EXCERPT].decode(errors="replace").strip() or "no reason given")
    if secret := token.rpartition(" ")[2]:
        told = told.replace(secret, "...")
    final = 400 <= code < 500 and code not in _TRY_AGAIN
    if final and (body.get("kind") == "Status" or data.strip() == _NO_SUCH_PATH):
        raise RefusedError(code, str(body.get("reason") or ""), told)
    wait = _retry_after(headers)
    passing = wait is None and (code >= 500 or code == _BUSY)
    unavailable = _PassingError if passing else ApiUnavailable
    raise unavailable(f"{what}: {code}: {told}", retry_after=wait)


def _object(data: bytes) -> Json:
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _page(api: Api, answer: Json) -> Page:
    """A list's page; its items do not say of what kind they are."""
    try:
        items = [{**item, "apiVersion": api.api_version, "kind": api.kind} for item in answer["items"] or ()]
        return Page(items, int(answer["metadata"]["resourceVersion"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ApiUnavailable(f"GET {api.path()}: the answer is no list: {error!r:.80}") from error


def _metadata(obj: Json) -> Json:
    metadata: Json = obj["metadata"]
    return metadata


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    text = headers.get("Retry-After", "")
    return timedelta(seconds=min(int(text[:9]), _LONGEST_WAIT)) if text.isdecimal() else None
