"""The checkpoint protocol: a checkpoint counts once its marker exists and every file is, byte for byte, what it names.

A trainer saves into ``checkpoint-N``; when all ranks are done, ``seal`` writes ``_COMPLETE.json`` last. Resuming takes
the newest sealed checkpoint that still matches its marker; a broken one is set aside, never loaded, and removed when
rotation has left it behind.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.artifact import FileEntry
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from pydantic import ValidationError

from posttrain_runtime.errors import StageError
from posttrain_runtime.files import digests, entries, sync_tree, write_json

log = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_CHECKPOINT_OR_BROKEN = re.compile(r"^(?:broken-)?checkpoint-(\d+)(?:\.\d+)?$")
_HEADROOM = 1.3


class Marker(Model):
    """``_COMPLETE.json``."""

    step: int
    world_size: int
    config_digest: str
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class Found:
    """The checkpoint to go on from, and what was passed over to find it."""

    path: Path | None
    skipped: tuple[str, ...] = ()
    """A sentence for each checkpoint that was set aside, newest first."""


def seal(checkpoint: Path, *, step: int, world_size: int, config_digest: str) -> None:
    """Declares a checkpoint complete. Call it once, after every rank has written its files; it reads them all."""
    sync_tree(checkpoint)
    files = tuple(entry for entry in entries(checkpoint) if entry.path != layout.COMPLETE)
    marker = Marker(step=step, world_size=world_size, config_digest=config_digest, files=files)
    write_json(checkpoint / layout.COMPLETE, marker.dump())


def newest(folder: Path, *, config_digest: str, world_size: int) -> Found:
    """The newest checkpoint to go on from, if any; it is compared with its marker byte for byte.

    Unfinished and damaged checkpoints are set aside. Checkpoints of another configuration or of another number of
    processes are refused, because going on from them would train something else than was asked for.
    """
    skipped: list[str] = []
    for _, path in sorted(_candidates(folder), reverse=True):
        fault = _fault(path) or _changed(path)
        if fault is not None:
            skipped.append(set_aside(path, fault))
            continue
        _check_origin(path, config_digest=config_digest, world_size=world_size)
        return Found(path, tuple(skipped))
    return Found(None, tuple(skipped))


def _check_origin(checkpoint: Path, *, config_digest: str, world_size: int) -> None:
    marker = read(checkpoint)
    if marker.world_size != world_size:
        raise StageError(
            ExitCode.DATA,
            "WorldSizeChanged",
            f"spec.distributed: {checkpoint.name} was saved by {_processes(marker.world_size)}, this attempt has "
            f"{world_size}: the batch of a step (batchSize x gradientAccumulation x processes), each process's place "
            f"in the data and its random numbers would be others; run with {marker.world_size} "
            "(nodes x processesPerNode), or remove the checkpoints to train from the beginning",
        )
    if marker.config_digest != config_digest:
        raise StageError(
            ExitCode.DATA,
            "CheckpointMismatch",
            f"{checkpoint} was saved by another configuration or from other inputs; remove it or create the object "
            "anew",
        )


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"


def set_aside(checkpoint: Path, fault: str) -> str:
    """Renames a checkpoint to ``broken-...``, so that nobody goes on from it; returns what to tell about it.

    Several ranks may do this to the same one.
    """
    told = f"{checkpoint.name} is set aside: {fault}"
    log.warning(told)
    with contextlib.suppress(FileNotFoundError):
        checkpoint.rename(_free_name(checkpoint.parent, f"broken-{checkpoint.name}"))
    return told


def whole(folder: Path) -> list[int]:
    """The steps of the checkpoints that one could go on from, in their order."""
    return sorted(step for step, path in _candidates(folder) if _fault(path) is None)


def rotate(folder: Path, *, keep: int, protect: Collection[int] = ()) -> None:
    """Removes everything older than the ``keep`` newest whole checkpoints: older ones, unfinished and broken ones.

    Checkpoints of the steps in ``protect`` stay.

    Unfinished ones are what a process left that was killed while saving, or while it was here. Newer ones stay.
    """
    steps = whole(folder)
    if not steps:
        return
    oldest = steps[-keep:][0]
    kept = {f"checkpoint-{step}" for step in (oldest, *protect)}
    for step, path in _candidates(folder, _CHECKPOINT_OR_BROKEN):
        if step <= oldest and path.name not in kept:
            # First the marker: half a checkpoint must not look whole.
            (path / layout.COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path)


def make_room(folder: Path, *, keep: int, expected_bytes: int, protect: Collection[int] = ()) -> None:
    """Looks for space before a checkpoint is saved, of the size of the newest or else of ``expected_bytes``.

    Where it is short, broken checkpoints are removed first, then older ones, one by one; the newest whole one always
    stays, and so do those of the steps in ``protect``. Raises ``StageError`` (STORAGE) when it is still short then.
    """
    needed = (_newest_bytes(folder) or expected_bytes) * _HEADROOM
    rotations = [partial(rotate, folder, keep=kept, protect=protect) for kept in range(keep, 0, -1)]
    steps = [partial(_remove_broken, folder), *rotations]
    for step in steps:
        if shutil.disk_usage(folder).free >= needed:
            return
        step()
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StageError(
            ExitCode.STORAGE,
            "DiskFull",
            f"{free / 1e6:.0f} MB are free in {folder}, a checkpoint needs {needed / 1e6:.0f} MB; "
            "free some, use a larger claim or lower checkpoints.keep",
        )


def _remove_broken(folder: Path) -> None:
    for path in folder.glob("broken-*"):
        shutil.rmtree(path)


def _newest_bytes(folder: Path) -> int | None:
    whole = [(step, path) for step, path in _candidates(folder) if _fault(path) is None]
    return sum(entry.size for entry in read(max(whole)[1]).files) if whole else None


def _candidates(folder: Path, names: re.Pattern[str] = _CHECKPOINT) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = ((names.match(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [(int(match[1]), path) for match, path in found if match]


def read(checkpoint: Path) -> Marker:
    """What a sealed checkpoint says of itself."""
    return Marker.model_validate_json((checkpoint / layout.COMPLETE).read_bytes())


def _fault(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole, by the sizes of its files."""
    try:
        marker = read(checkpoint)
    except FileNotFoundError:
        return "it was not finished (no marker)"
    except ValidationError:
        return "its marker is damaged"
    for entry in marker.files:
        path = checkpoint / entry.path
        if not path.is_file() or path.stat().st_size != entry.size:
            return f"{entry.path} is missing or has the wrong size"
    return None


def _changed(checkpoint: Path) -> str | None:
    """What has other bytes than were sealed; reads every file."""
    files = read(checkpoint).files
    found = digests([checkpoint / entry.path for entry in files])
    changed = [entry.path for entry, digest in zip(files, found, strict=True) if entry.sha256 != digest]
    return f"{', '.join(changed)} changed since it was saved" if changed else None


def _free_name(folder: Path, name: str) -> Path:
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{name}.{number}"
    return path
