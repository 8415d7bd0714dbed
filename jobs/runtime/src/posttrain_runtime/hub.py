"""Inputs on the Hub: found out once which commit they are, fetched once into the store, the same for every attempt."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from posttrain_contract import layout
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.hub import SCHEME, HubAddress, Pin, Pins, Revision
from posttrain_contract.stage import ResolvedInput
from pydantic import Field

from posttrain_runtime import store
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.files import leftovers, write_json
from posttrain_runtime.hub_errors import TOKEN
from posttrain_runtime.logs import take_secret

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PARTIAL: Final = ".partial"
"""Where files are fetched to; a later attempt keeps those that are whole."""
_CLIENT_FILES: Final = ".cache"
"""Where the client keeps, below that, what is not whole."""
_POLL: Final = 0.2
_SET_DUMPABLE: Final = 4
"""Of prctl(2)."""


class Request(Model):
    """What to find out or to fetch."""

    uri: str
    field: str
    endpoint: str | None
    token: str | None
    weights: bool
    revision: str | None
    """The branch, tag or commit; None: the default branch."""
    folder: Path | None = None
    """Where to fetch the files to; None: only the commit and its files are asked for."""


class Answer(Model):
    """What came of it: a failure, or the commit and the chosen files with their sizes in bytes."""

    revision: Revision | None = None
    files: dict[str, int] = Field(default={})
    code: ExitCode = ExitCode.DONE
    reason: str = ""
    message: str = ""


def fetch_inputs(context: StageContext[Any], *, weights: bool = True) -> None:
    """Fetches the inputs on the Hub that the store does not have. Several pods of a run wait for the one that does.

    Afterwards nothing that this process starts can have the Hub's token. Without ``weights`` a model's configuration
    and tokenizer are enough. Raises ``StageError`` naming the field, before anything is fetched where that is possible.
    """
    inputs = {name: item for name, item in context.config.run.inputs.items() if item.uri.startswith(SCHEME)}
    if not inputs:
        return
    token = take_secret(TOKEN) or None
    if token is not None:
        # Else a child could read it in /proc: the environment that this process began with stays there.
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    remotes = [_Remote(context, name, item, token, weights) for name, item in inputs.items()]
    for remote in remotes:
        remote.pin()
    for remote in remotes:
        remote.fetch()


@dataclass
class _Remote:
    """One input on the Hub."""

    context: StageContext[Any]
    name: str
    item: ResolvedInput
    token: str | None
    weights: bool
    _sizes: dict[str, int] = field(default_factory=dict)
    """The chosen files with their bytes, where they were asked for."""

    def pin(self) -> None:
        """Finds out the commit and records it, unless that was done; the first pod of the first attempt decides."""
        context = self.context
        if self.name not in context.pins:
            with store.locked(context.folder, waiting=self._wait):
                if self.name not in context.pins:
                    self._record()
        context.progress.revisions[self.name] = context.pins[self.name].revision

    def fetch(self) -> None:
        """Makes sure that the store has the input, whole."""
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        if self._is_whole():
            return
        with store.locked(folder, waiting=self._wait):
            if not self._is_whole():  # another pod may have mended it meanwhile
                try:
                    self._publish()
                except FileNotFoundError:
                    # Where locks lock nothing, another pod has published under our hands.
                    if store.read_manifest(folder) is None:
                        raise

    @property
    def _address(self) -> HubAddress:
        return HubAddress.parse(self.item.uri)

    @property
    def _folder(self) -> Path:
        return self.context.root / self.item.path / self.context.pins[self.name].key

    def _wait(self) -> None:
        self.context.check_stop()
        self.context.progress.update(f"waiting for {self.name}")

    def _record(self) -> None:
        address = self._address
        known = _COMMIT.fullmatch(address.revision or "") is not None
        revision = address.revision if known else self._ask(f"looking for {self.name}").revision
        assert revision is not None  # noqa: S101 - an answer without failure has one
        pin = Pin(uri=self.item.uri, revision=revision, key=_key(address, revision, weights=self.weights))
        pins = Pins(inputs={**self.context.pins, self.name: pin})
        write_json(self.context.folder / layout.PINS, pins.dump())

    def _is_whole(self) -> bool:
        self.context.progress.update(f"checking {self.name}")
        manifest = store.read_manifest(self._folder)
        return manifest is not None and not store.damage(
            self._folder, manifest, hashes=True, check=self.context.check_stop
        )

    def _publish(self) -> None:
        """Fetches, checks and publishes, in place of what is damaged. Call it while ``locked``."""
        folder, pin = self._folder, self.context.pins[self.name]
        partial = folder / _PARTIAL
        store.remove(folder)
        shutil.rmtree(partial / _CLIENT_FILES, ignore_errors=True)
        for left in leftovers(folder):
            shutil.rmtree(left, ignore_errors=True)
        self._sizes = dict(self._ask(f"looking for {self.name}").files)
        self._check_room(partial)
        self._ask(f"fetching {self.name}", folder=partial)
        shutil.rmtree(partial / _CLIENT_FILES, ignore_errors=True)
        staged = store.Staged(partial, self._address.type)
        digest = hashlib.sha256(pin.key.encode()).hexdigest()
        store.publish(folder, staged, store.describe(staged, config_digest=digest, inputs={}))

    def _check_room(self, partial: Path) -> None:
        needed = sum(self._sizes.values()) - _present(partial, self._sizes)
        free = shutil.disk_usage(partial.parent).free
        if needed > free:
            raise StageError(
                ExitCode.STORAGE,
                "DiskFull",
                f"spec.{self.name}.uri: {self._address.id} takes {needed >> 20} MiB more, and only {free >> 20} MiB "
                "are free in the store; free some or use a larger claim",
            )

    def _ask(self, phase: str, *, folder: Path | None = None) -> Answer:
        """What the client says; it is ended when the stage is asked to stop. Raises ``StageError``."""
        pin = self.context.pins.get(self.name)
        request = Request(
            uri=self.item.uri,
            field=f"spec.{self.name}.uri",
            endpoint=self.context.config.run.hub,
            token=self.token,
            weights=self.weights,
            revision=pin.revision if pin is not None else self._address.revision,
            folder=folder,
        )
        command = [sys.executable, "-m", "posttrain_runtime.hub_client"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        with subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
            try:
                process.stdin.write(request.model_dump_json(by_alias=True).encode() + b"\n")
                process.stdin.flush()
                while process.poll() is None:
                    self.context.check_stop()
                    self._tell(phase, folder)
                    time.sleep(_POLL)
            except BaseException:
                process.kill()
                raise
            return self._read(process.stdout.read(), process.returncode)

    def _tell(self, phase: str, folder: Path | None) -> None:
        if folder is None:
            self.context.progress.update(phase)
            return
        size = sum(self._sizes.values())
        done = min(size, sum(file.stat().st_size for file in _files(folder)))
        self.context.progress.update(phase, step=done, total=size)

    def _read(self, output: bytes, status: int) -> Answer:
        if not output:
            message = f"spec.{self.name}.uri: the client of the Hub ended with status {status}; its log says more"
            raise StageError(ExitCode.UNREACHABLE, "HubUnreachable", message)
        answer = Answer.model_validate_json(output.splitlines()[-1])
        if answer.code is not ExitCode.DONE:
            raise StageError(answer.code, answer.reason, answer.message)
        return answer


def _present(partial: Path, sizes: Mapping[str, int]) -> int:
    """The bytes of the files that are whole already."""
    return sum(size for name, size in sizes.items() if (partial / name).is_file())


def _files(folder: Path) -> list[Path]:
    """All files below a folder in which another process works."""
    found = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return [file for file in found if file.is_file()]


def _key(address: HubAddress, revision: str, *, weights: bool) -> str:
    """A name for the chosen files of a commit that people can read."""
    name = address.id.replace("/", "--")
    files = "" if address.path is None else f"-{hashlib.sha256(address.path.encode()).hexdigest()[:12]}"
    part = "" if weights or address.type == "dataset" else "-configuration"
    return f"{address.type}-{name}-{revision}{files}{part}"
