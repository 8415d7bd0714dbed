"""Inputs on the Hub: found out once which commit they are, fetched once into the store, the same for every attempt."""

import hashlib
import importlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.hub import SCHEME, HubAddress, Pin, Pins
from posttrain_contract.stage import ResolvedInput

from posttrain_runtime import store
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.files import git_hash, sha256, write_json
from posttrain_runtime.hub_files import choose
from posttrain_runtime.logs import take_secret

TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of the variable
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_OFFLINE: Final = "HF_HUB_OFFLINE"
_PARTIAL: Final = ".partial"
"""Where files are fetched to; a later attempt goes on with what is there."""
_CLIENT_FILES: Final = ".cache"
"""Where the client keeps, below that, how far it is."""
_AT_ONCE: Final = 8
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = 401, 403, 404, 429, 500


def client() -> Any:
    """The library ``huggingface_hub``, with access to the network whatever the environment says to other libraries."""
    kept = os.environ.pop(_OFFLINE, None)
    try:
        importlib.import_module("huggingface_hub.constants")  # reads the variable
        return importlib.import_module("huggingface_hub")
    finally:
        if kept is not None:
            os.environ[_OFFLINE] = kept


@contextmanager
def explained(what: str, *, endpoint: str, remedy: str) -> Iterator[None]:
    """Turns what the client raises into ``StageError``.

    REFUSED, with ``remedy``, for what the Hub will not do; UNREACHABLE for what may work later. ``what`` names the
    field and the repository.
    """
    import httpx2  # noqa: PLC0415 - comes with the client
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refusal(what, endpoint, remedy, error) from error
    except (httpx2.HTTPError, ConnectionError, errors.FileMetadataError, errors.LocalEntryNotFoundError) as error:
        message = f"{what}: the Hub at {endpoint} did not answer ({type(error).__name__}: {error}); try again later"
        raise StageError(ExitCode.UNREACHABLE, "HubUnreachable", message) from error


def _refusal(what: str, endpoint: str, remedy: str, error: Any) -> StageError:
    status = error.response.status_code if error.response is not None else 0
    said = f"{what}: the Hub at {endpoint} answered {status}"
    if type(error).__name__ == "RevisionNotFoundError":
        return StageError(ExitCode.REFUSED, "RevisionNotFound", f"{said}: there is no such revision; correct it")
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        return StageError(ExitCode.UNREACHABLE, "HubUnreachable", f"{said}; try again later")
    if type(error).__name__ == "GatedRepoError":
        return StageError(ExitCode.REFUSED, "GatedRepository", f"{said}: it is gated, so accept its terms; {remedy}")
    if status in (_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND):
        return StageError(ExitCode.REFUSED, "HubRefused", f"{said}; {remedy}")
    detail = " ".join((getattr(error, "server_message", None) or str(error)).split())
    return StageError(ExitCode.REFUSED, "HubRefused", f"{said}: {detail}")


def fetch_inputs(context: StageContext[Any]) -> None:
    """Fetches the inputs on the Hub that the store does not have. Several pods of a run wait for the one that does.

    Afterwards nothing that this process starts can have the Hub's token. Raises ``StageError`` naming the field.
    """
    inputs = {name: item for name, item in context.config.run.inputs.items() if item.uri.startswith(SCHEME)}
    if not inputs:
        return
    token = take_secret(TOKEN)
    for name, item in inputs.items():
        _Remote(context, name, item, token).fetch()


@dataclass
class _Remote:
    """One input on the Hub."""

    context: StageContext[Any]
    name: str
    item: ResolvedInput
    token: str | None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _done: int = 0
    _size: int = 0

    @property
    def address(self) -> HubAddress:
        return HubAddress.parse(self.item.uri)

    @property
    def field(self) -> str:
        return f"spec.{self.name}.uri"

    def fetch(self) -> None:
        """Makes sure that the store has the input, whole."""
        context = self.context
        pin = context.pins.get(self.name) or self._pin()
        context.progress.revisions[self.name] = pin.revision
        folder = context.root / self.item.path / pin.key
        folder.mkdir(parents=True, exist_ok=True)
        context.progress.update(f"checking {self.name}")
        manifest = store.read_manifest(folder)
        if manifest is not None and store.damage(folder, manifest, hashes=True) is not None:
            store.withdraw(folder, manifest)
            manifest = None
        if manifest is not None:
            return
        with store.locked(folder, waiting=self._wait):
            if store.read_manifest(folder) is None:
                self._publish(folder, pin)

    def _wait(self) -> None:
        self.context.check_stop()
        self.context.progress.update(f"waiting for {self.name}")

    def _pin(self) -> Pin:
        """Finds out the commit and records it; the first pod of the first attempt decides."""
        with store.locked(self.context.folder, waiting=self._wait):
            known = self.context.pins
            if self.name in known:
                return known[self.name]
            address = self.address
            revision = address.revision or ""
            if _COMMIT.fullmatch(revision) is None:
                revision = self._info(address.revision).sha
            pin = Pin(uri=self.item.uri, revision=revision, key=_key(address, revision))
            write_json(self.context.folder / layout.PINS, Pins(inputs={**known, self.name: pin}).dump())
        return pin

    def _info(self, revision: str | None, *, files: bool = False) -> Any:
        with self._explained():
            return self._api().repo_info(
                self.address.id, repo_type=self.address.type, revision=revision, files_metadata=files
            )

    def _publish(self, folder: Path, pin: Pin) -> None:
        """Fetches, checks and publishes; what a killed pod has fetched is not fetched again."""
        siblings = {file.rfilename: file for file in self._info(pin.revision, files=True).siblings}
        names = choose(self.address, list(siblings), field=self.field)
        chosen = [siblings[name] for name in names]
        partial = folder / _PARTIAL
        self._check_room(partial, chosen)
        self._fetch(partial, names, pin.revision)
        self.context.progress.update(f"checking {self.name}")
        self._verify(partial, chosen)
        shutil.rmtree(partial / _CLIENT_FILES, ignore_errors=True)
        staged = store.Staged(partial, self.address.type)
        digest = hashlib.sha256(pin.key.encode()).hexdigest()
        store.publish(folder, staged, store.describe(staged, config_digest=digest, inputs={}))

    def _check_room(self, partial: Path, chosen: Sequence[Any]) -> None:
        present = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
        self._size = sum(file.size or 0 for file in chosen)
        free = shutil.disk_usage(partial.parent).free
        if self._size - present > free:
            raise StageError(
                ExitCode.STORAGE,
                "DiskFull",
                f"{self.field}: {self.address.id} takes {self._size >> 20} MiB, and only {free >> 20} MiB are free in "
                "the store; free some or use a larger claim",
            )

    def _fetch(self, partial: Path, names: Sequence[str], revision: str) -> None:
        api, bar = self._api(), _bar(self._tell)

        def fetch(name: str) -> None:
            api.hf_hub_download(
                self.address.id,
                name,
                repo_type=self.address.type,
                revision=revision,
                local_dir=partial,
                tqdm_class=bar,
            )

        with self._explained(), ThreadPoolExecutor(_AT_ONCE) as pool:
            fetched = [pool.submit(fetch, name) for name in names]
            try:
                for one in fetched:
                    one.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _tell(self, count: int) -> None:
        """So many more bytes are there; ends the download when the stage was asked to stop."""
        self.context.check_stop()
        with self._lock:
            self._done += count
            self.context.progress.update(f"fetching {self.name}", step=self._done, total=max(self._done, self._size))

    def _verify(self, partial: Path, chosen: Sequence[Any]) -> None:
        """Compares every file with the hash that the Hub tells of it."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            checked = zip(chosen, pool.map(_checker(partial), chosen), strict=True)
            wrong = [file.rfilename for file, good in checked if not good]
        if not wrong:
            return
        for name in wrong:
            (partial / name).unlink()
        raise StageError(
            ExitCode.UNREACHABLE,
            "DownloadDamaged",
            f"{self.field}: {', '.join(wrong)} of {self.address.id} came with other content than the Hub tells of; "
            "it is fetched again",
        )

    def _api(self) -> Any:
        # Without a token of its own the client would take one from the home folder of whoever runs this.
        return client().HfApi(endpoint=self.context.config.run.hub, token=self.token or False)

    def _explained(self) -> Any:
        endpoint = self._api().endpoint
        token = "is set: it must be one that may read it" if self.token else "is not set: name it there if it needs one"
        remedy = f"correct the name; run.secrets.huggingFace {token}"
        return explained(f"{self.field}: {self.address.id}", endpoint=endpoint, remedy=remedy)


def _key(address: HubAddress, revision: str) -> str:
    """A name for the chosen files of a commit that people can read."""
    name = address.id.replace("/", "--")
    files = "" if address.path is None else f"-{hashlib.sha256(address.path.encode()).hexdigest()[:12]}"
    return f"{address.type}-{name}-{revision}{files}"


def _checker(folder: Path) -> Callable[[Any], bool]:
    def good(file: Any) -> bool:
        path = folder / file.rfilename
        return bool(sha256(path) == file.lfs.sha256 if file.lfs else git_hash(path) == file.blob_id)

    return good


def _bar(tell: Callable[[int], None]) -> type:
    """A progress bar for the client that shows nothing and tells every byte."""

    class Bar(client().utils.tqdm):  # type: ignore[misc] # it is known at run time only
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            tell(int(kwargs.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            tell(int(n or 0))

    return Bar
