"""The checkpoint protocol: a checkpoint counts once its marker exists and every file has the size that it names.

A trainer saves into ``checkpoint-N``; when all ranks are done, ``seal`` writes ``_COMPLETE.json`` last. Resuming takes
the newest sealed checkpoint that still matches its marker; a broken one is set aside, never loaded, and removed when
rotation has left it behind.
"""

import logging
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from pydantic import ValidationError

from posttrain_runtime.errors import StageError
from posttrain_runtime.files import sync_tree, write_json

log = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_CHECKPOINT_OR_BROKEN = re.compile(r"^(?:broken-)?checkpoint-(\d+)(?:\.\d+)?$")
_HEADROOM = 1.3


class Marker(Model):
    """``_COMPLETE.json``."""

    step: int
    world_size: int
    config_digest: str
    files: dict[str, int]
    """Bytes of each file, by its path below the checkpoint."""


def seal(checkpoint: Path, *, step: int, world_size: int, config_digest: str) -> None:
    """Declares a checkpoint complete. Call it once, after every rank has written its files."""
    sync_tree(checkpoint)
    files = {p.relative_to(checkpoint).as_posix(): p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()}
    marker = Marker(step=step, world_size=world_size, config_digest=config_digest, files=files)
    write_json(checkpoint / layout.COMPLETE, marker.dump())


def newest(folder: Path, *, config_digest: str) -> Path | None:
    """The newest checkpoint to go on from, or None.

    Unfinished and damaged checkpoints are renamed to ``broken-...`` with a warning. Checkpoints of another
    configuration are refused, because going on from them would train something else than was asked for.
    """
    for step, path in sorted(_candidates(folder), reverse=True):
        fault = _fault(path)
        if fault is not None:
            log.warning("checkpoint-%d is set aside: %s", step, fault)
            path.rename(_free_name(folder, f"broken-{path.name}"))
            continue
        marker = _read(path)
        if marker.config_digest != config_digest:
            raise StageError(
                ExitCode.DATA,
                "CheckpointMismatch",
                f"{path} was saved by another configuration or from other inputs; remove it or create the object anew",
            )
        return path
    return None


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


def check_space(folder: Path, *, expected_bytes: int) -> None:
    """Raises ``StageError`` (STORAGE) when a checkpoint of about this size would not fit."""
    free = shutil.disk_usage(folder).free
    if free < expected_bytes * _HEADROOM:
        raise StageError(
            ExitCode.STORAGE,
            "DiskFull",
            f"{free / 1e6:.0f} MB are free in {folder}, a checkpoint needs {expected_bytes * _HEADROOM / 1e6:.0f} MB; "
            "free some, use a larger claim or lower checkpoints.keep",
        )


def _candidates(folder: Path, names: re.Pattern[str] = _CHECKPOINT) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = ((names.match(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [(int(match[1]), path) for match, path in found if match]


def _read(checkpoint: Path) -> Marker:
    return Marker.model_validate_json((checkpoint / layout.COMPLETE).read_bytes())


def _fault(checkpoint: Path) -> str | None:
    try:
        marker = _read(checkpoint)
    except FileNotFoundError:
        return "it was not finished (no marker)"
    except ValidationError:
        return "its marker is damaged"
    for name, size in marker.files.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or has the wrong size"
    return None


def _free_name(folder: Path, name: str) -> Path:
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{name}.{number}"
    return path
