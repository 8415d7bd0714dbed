"""Addresses of local pods: every pod has a loopback address of its own, so the fixed ports of stages never collide."""

import hashlib
import socket
from pathlib import Path

from posttrain_contract import layout

_HOSTS = 254
_TRIES = 16
"""Addresses in a row that may be taken; after so many it is no accident, and the stage will name the port."""
_PORTS = (layout.TELEMETRY_PORT, layout.SERVER_PORT)


class Addresses:
    """Gives each pod name one address in 127.0.0.0/8; the same name keeps it for the life of this object."""

    def __init__(self, workspace: Path) -> None:
        digest = hashlib.sha256(str(workspace.resolve()).encode()).digest()
        self._network = (digest[0] % 200 + 20, digest[1])
        self._given: dict[str, str] = {}
        self._next = 0

    def of(self, pod: str) -> str:
        """The address of a pod."""
        if pod not in self._given:
            self._given[pod] = self._free()
        return self._given[pod]

    def _free(self) -> str:
        """The next address whose ports nobody holds; after ``_TRIES`` the next one all the same."""
        for _ in range(_TRIES):
            address = self._take()
            if all(_is_free(address, port) for port in _PORTS):
                break
        return address

    def _take(self) -> str:
        block, host = divmod(self._next, _HOSTS)
        self._next += 1
        first, second = self._network
        return f"127.{first}.{(second + block) % 256}.{host + 1}"


def free_port() -> int:
    """A port of this machine that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True
