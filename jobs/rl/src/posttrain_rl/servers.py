"""HTTP to the rollout servers: every call has the run's key and a time-out, and is never repeated behind our back."""

import logging
import time
from collections.abc import Sequence
from functools import partial
from threading import Event
from typing import Any

import requests
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import keys
from posttrain_runtime.errors import Preempted, StageError
from posttrain_runtime.progress import ProgressReporter

from posttrain_rl.concurrency import concurrently

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
CONTROL_SECONDS = 60.0
START_SECONDS = 1800.0
"""How long servers may take to load their model."""
_POLL_SECONDS = 0.5


class Server:
    """One rollout server."""

    def __init__(self, host: str, *, key: str) -> None:
        self.host = host
        self._url = f"http://{host}:{layout.SERVER_PORT}"
        self._session = requests.Session()
        self._session.headers[keys.HEADER] = keys.authorization(key)
        self._session.trust_env = False  # no proxy between the pods of a run

    def is_healthy(self) -> bool:
        """Whether it answers that it is well."""
        try:
            response = self._session.get(f"{self._url}/health", timeout=CONNECT_SECONDS)
        except requests.RequestException:
            return False
        return bool(response.status_code == requests.codes.ok)

    def get(self, route: str) -> Any:
        """The JSON answer to a GET. Raises ``StageError`` (SERVER_LOST)."""
        return self._request("GET", route, seconds=CONTROL_SECONDS)

    def post(self, route: str, body: Any, *, seconds: float = CONTROL_SECONDS) -> Any:
        """The JSON answer to a POST. Raises ``StageError`` (SERVER_LOST)."""
        return self._request("POST", route, json=body, seconds=seconds)

    def _request(self, method: str, route: str, *, seconds: float, **arguments: Any) -> Any:
        try:
            response = self._session.request(method, self._url + route, timeout=(CONNECT_SECONDS, seconds), **arguments)
        except requests.RequestException as error:
            raise self._lost(f"did not answer {route}: {type(error).__name__}") from error
        if response.status_code != requests.codes.ok:
            raise self._lost(f"answered {route} with {response.status_code}: {response.text[:300]}")
        return response.json() if response.content else None

    def _lost(self, what: str) -> StageError:
        return lost(f"rollout server {self.host} {what}")


def lost(what: str) -> StageError:
    """The error for a server that cannot be used any more; another attempt starts with new ones."""
    return StageError(
        ExitCode.SERVER_LOST,
        "ServerLost",
        f"spec.rollout: {what}; look into the server's log, and raise run.resources.memory or lower "
        "rollout.cacheMemoryMi when its memory ran out",
    )


def post_all(servers: Sequence[Server], route: str, body: Any) -> None:
    """The same POST to every server at once."""
    concurrently([partial(server.post, route, body) for server in servers])


def wait_until_healthy(
    servers: Sequence[Server], *, progress: ProgressReporter, stop: Event, seconds: float = START_SECONDS
) -> None:
    """Returns when every server is well.

    Raises ``StageError`` (SERVER_LOST) naming those that are not after ``seconds``, and ``Preempted``.
    """
    deadline = time.monotonic() + seconds
    waiting = list(servers)
    while waiting:
        waiting = [server for server in waiting if not server.is_healthy()]
        progress.update("waiting for rollout servers", step=len(servers) - len(waiting), total=len(servers))
        if waiting and time.monotonic() > deadline:
            names = ", ".join(server.host for server in waiting)
            raise lost(f"rollout servers are not ready after {seconds:.0f} s: {names}")
        if waiting and stop.wait(_POLL_SECONDS):
            raise Preempted(saved=False)
