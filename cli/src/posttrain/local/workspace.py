"""The folder of a local run: what lies where, and the lock that one run at a time holds."""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from posttrain_contract import layout
from posttrain_operator.cluster import Json

_LOCK_TIMEOUT: Final = 90.0
_LOCK_POLL: Final = 0.1
_PATIENCE: Final = 0.5


class WorkspaceBusyError(Exception):
    """Another run works in this folder."""


@dataclass(frozen=True)
class LocalOptions:
    """What a user may say about where a local run keeps and finds things."""

    workspace: Path = Path(".posttrain")
    claims: Mapping[str, Path] = field(default_factory=dict)
    """Folders that stand for claims; a claim that is not named lies below the workspace."""
    hub_endpoint: str | None = None
    """URL of the Hub that uploads go to; None: only the folder in the Hub's layout is made."""

    def claim(self, name: str) -> Path:
        """The folder that stands for a claim."""
        return (self.claims.get(name) or self.workspace / "claims" / name).absolute()

    def path(self, uri: str) -> Path:
        """Where the bytes at a pvc:// or file:// URI are on this machine."""
        scheme, rest = uri.split("://", 1)
        claim, _, path = rest.partition("/")
        return Path(rest) if scheme == "file" else self.claim(claim) / path

    @property
    def objects(self) -> Path:
        """Where objects and their status survive a run."""
        return self.workspace.absolute() / "objects"

    def pod(self, name: str, uid: str) -> Path:
        """The folder of one pod: its mounts and its specification."""
        return self.workspace.absolute() / "pods" / f"{name}-{uid[:8]}"

    def logs(self, obj: Json) -> Path:
        """The folder with the logs of an object's pods."""
        name = f"{obj['kind'].lower()}-{obj['metadata']['name']}-{obj['metadata']['uid'][:8]}"
        return self.workspace.absolute() / "logs" / name


def run_folder(obj: Json, options: LocalOptions) -> Path:
    """The object's run folder in the store, see ``posttrain_contract.layout``."""
    metadata = obj["metadata"]
    folder = layout.run_folder(
        namespace=metadata["namespace"], kind=obj["kind"], name=metadata["name"], uid=metadata["uid"]
    )
    return options.claim(claim_of(obj)) / folder


def claim_of(obj: Json) -> str:
    """The claim that an object's artifacts go to."""
    return str(obj["spec"].get("run", {}).get("storage", {}).get("claim", "posttrain"))


def pod_logs(obj: Json, options: LocalOptions) -> list[Path]:
    """The logs of an object's pods, oldest first."""
    return sorted(options.logs(obj).glob("*.log"), key=lambda path: path.stat().st_mtime)


class WorkspaceLock:
    """The lock of a workspace. Pods inherit it, so it is free only when every process of a run has ended."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self.descriptor = -1

    async def acquire(self, say: Callable[[str], None]) -> None:
        """Waits for the processes of an earlier run to end. Raises ``WorkspaceBusyError`` when they do not."""
        workspace = self._options.workspace.absolute()
        workspace.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(workspace / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        started, said = time.monotonic(), False
        while not self._try():
            waited = time.monotonic() - started
            if waited > _LOCK_TIMEOUT:
                os.close(self.descriptor)
                message = f"another `posttrain run` works in {workspace}; let it end or use another --workspace"
                raise WorkspaceBusyError(message)
            if not said and waited > _PATIENCE:
                said = True
                say("waiting for the processes of another run in this workspace to end")
            await asyncio.sleep(_LOCK_POLL)
        shutil.rmtree(workspace / "pods", ignore_errors=True)

    def release(self) -> None:
        """Gives the lock back."""
        os.close(self.descriptor)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
