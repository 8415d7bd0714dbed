"""The artifact store: publishing is atomic, and a published artifact proves itself."""

import fcntl
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.artifact import ArtifactSummary, ArtifactType, FileEntry, InputEntry, Manifest
from posttrain_contract.exit_codes import ExitCode
from pydantic import ValidationError

from posttrain_runtime.errors import StageError
from posttrain_runtime.files import digests, entries, sync_folder, sync_tree, unique, write_json

log = logging.getLogger(__name__)

_LOCK = ".lock"
_MARK = ".lock"
_LOCK_POLL = 0.05


@dataclass(frozen=True)
class Staged:
    """A finished folder that waits to be published, and what is known of it."""

    folder: Path
    type: ArtifactType
    rows: int | None = None
    parameters: int | None = None


def content_digest(files: tuple[FileEntry, ...]) -> str:
    """SHA-256 over the lines 'sha256  size  path', sorted by path: equal content has an equal digest."""
    lines = "".join(f"{entry.sha256}  {entry.size}  {entry.path}\n" for entry in sorted(files, key=lambda e: e.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def describe(staged: Staged, *, config_digest: str, inputs: dict[str, InputEntry]) -> Manifest:
    """The manifest of a staged folder; reads every byte."""
    files = tuple(entries(staged.folder))
    return Manifest(
        type=staged.type,
        digest=content_digest(files),
        files=files,
        bytes=sum(entry.size for entry in files),
        rows=staged.rows,
        parameters=staged.parameters,
        config_digest=config_digest,
        inputs=inputs,
    )


@contextmanager
def locked(run_folder: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lets one process at a time change what a run folder publishes; the lock ends with its holder.

    Pods of an Indexed Job may finish at the same moment. ``waiting`` is called again and again until the lock is there,
    and may raise. Storage without locks only loses this protection.
    """
    with (run_folder / _LOCK).open("ab") as file:
        try:
            while not _try_lock(file.fileno()):
                waiting()
                time.sleep(_LOCK_POLL)
        except OSError as error:
            log.warning("%s has no file locks (%s); going on without", run_folder, error.strerror)
        yield


@contextmanager
def staging_area(staging: Path) -> Iterator[None]:
    """Keeps a staging folder from other pods until the block ends, and removes it then.

    A locked file beside the folder says that its owner lives. Storage without locks loses this protection.
    """
    mark = _mark(staging)
    with ExitStack() as stack:
        with locked(staging.parent):
            file = stack.enter_context(mark.open("ab"))
            with suppress(OSError):
                _try_lock(file.fileno())
        try:
            yield
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            mark.unlink(missing_ok=True)


def clear_staging(run_folder: Path, prefix: str) -> None:
    """Removes the staging folders that begin with ``prefix`` and whose owners are dead. Call it while ``locked``."""
    for name in {path.name.removesuffix(_MARK) for path in run_folder.glob(f"{prefix}*")}:
        mark = _mark(run_folder / name)
        with mark.open("ab") as file:
            try:
                dead = _try_lock(file.fileno())
            except OSError:
                dead = True
            if dead:
                shutil.rmtree(run_folder / name, ignore_errors=True)
                mark.unlink(missing_ok=True)


def _mark(staging: Path) -> Path:
    return staging.with_name(staging.name + _MARK)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def publish(run_folder: Path, staged: Staged, manifest: Manifest) -> None:
    """Moves a staged folder to its final name and writes the manifest last. Call it while ``locked``.

    Readers look for the manifest, so they see the whole artifact or none. The first to publish wins: an artifact of
    the same configuration stays as it is. One that was left without a manifest by a crash is replaced.
    """
    earlier = read_manifest(run_folder)
    if earlier is not None and earlier.config_digest == manifest.config_digest:
        return
    final = run_folder / layout.ARTIFACT
    sync_tree(staged.folder)
    remove(run_folder)
    staged.folder.rename(final)
    sync_folder(run_folder)
    write_json(run_folder / layout.MANIFEST, manifest.dump())


def withdraw(run_folder: Path, manifest: Manifest) -> None:
    """Removes a published artifact, manifest first, unless another one was published meanwhile."""
    with locked(run_folder):
        if read_manifest(run_folder) == manifest:
            remove(run_folder)


def remove(run_folder: Path) -> None:
    """Removes a published artifact, manifest first. Call it while ``locked``."""
    (run_folder / layout.MANIFEST).unlink(missing_ok=True)
    discard(run_folder / layout.ARTIFACT)


def discard(folder: Path) -> None:
    """Removes a folder; it disappears from its name at once, its content after that."""
    doomed = folder.with_name(f"{unique(folder.name)}.removed")
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def read_manifest(run_folder: Path) -> Manifest | None:
    """The manifest of a run's artifact, or None when nothing is published or the manifest is not readable."""
    try:
        return Manifest.model_validate_json((run_folder / layout.MANIFEST).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def damage(
    run_folder: Path, manifest: Manifest, *, hashes: bool, check: Callable[[], None] = lambda: None
) -> str | None:
    """What differs between an artifact and its manifest, as a sentence; None when nothing does.

    Sizes are compared always, contents only with ``hashes``, which reads every byte; ``check`` is called before each
    file and may raise.
    """
    folder = run_folder / layout.ARTIFACT
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            return f"{entry.path} is missing"
        if (size := path.stat().st_size) != entry.size:
            return f"{entry.path} has {size} bytes, not {entry.size}"
    found = digests([folder / entry.path for entry in manifest.files], check=check) if hashes else []
    for entry, digest in zip(manifest.files, found, strict=False):
        if digest != entry.sha256:
            return f"{entry.path} has other content than was published"
    return None


def shown_name(path: Path) -> str:
    """The name of a file or folder for people: of an artifact, whose folder has always the same, that of its run."""
    return path.parent.name if path.name == layout.ARTIFACT else path.name


def is_artifact(folder: Path) -> bool:
    """Whether a folder was published as an artifact."""
    return folder.name == layout.ARTIFACT and (folder.parent / layout.MANIFEST).is_file()


def check_artifact(
    folder: Path, *, field: str, uri: str, digest: str | None, check: Callable[[], None] = lambda: None
) -> None:
    """Checks an artifact that is an input, by size and hash, before anything is made from it.

    ``folder`` is the ``artifact`` folder. Raises ``StageError`` (DATA) naming ``field``.
    """
    manifest = read_manifest(folder.parent)
    if manifest is None:
        raise StageError(ExitCode.DATA, "InputMissing", f"{field}: no artifact is published at {uri}")
    if digest is not None and manifest.digest != digest:
        raise StageError(
            ExitCode.DATA,
            "InputChanged",
            f"{field}: the artifact at {uri} is {manifest.digest[:12]}, not {digest[:12]} as this run was told; "
            "create the object anew to use the new one",
        )
    if (what := damage(folder.parent, manifest, hashes=True, check=check)) is not None:
        raise StageError(
            ExitCode.DATA, "InputDamaged", f"{field}: the artifact at {uri} is damaged: {what}; make it again"
        )


def summarize(manifest: Manifest, *, uri: str) -> ArtifactSummary:
    """What a status tells of an artifact."""
    return ArtifactSummary(
        uri=uri,
        digest=manifest.digest,
        type=manifest.type,
        bytes=manifest.bytes,
        rows=manifest.rows,
        parameters=manifest.parameters,
    )
