"""The source of a filter: which files there are, and how they are cut into units of work."""

from collections.abc import Sequence
from pathlib import Path

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import ResolvedInput
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import is_artifact, read_manifest

from posttrain_filter.rows import JsonlRange, RowGroups, SourceFile, Unit, row_group_sizes

SUFFIXES = (".jsonl", ".parquet")
_LISTED = 10
_UNIT_BYTES = 64 << 20
"""Small enough that a restarted worker repeats little, large enough that a unit's bookkeeping costs nothing."""


def find_files(path: Path, source: ResolvedInput) -> list[SourceFile]:
    """The readable files of a source, sorted by path.

    ``path`` is a file, a folder (searched at every depth) or an artifact (its files are those of the manifest).
    Raises ``StageError`` (DATA) naming what there is when nothing can be read.
    """
    if path.is_file():
        found = [(path.name, path)]
    elif is_artifact(path) and (manifest := read_manifest(path.parent)) is not None:
        found = [(entry.path, path / entry.path) for entry in manifest.files]
    else:
        found = [(item.relative_to(path).as_posix(), item) for item in path.rglob("*") if item.is_file()]
    files = [_describe(name, item) for name, item in sorted(found) if item.suffix.lower() in SUFFIXES]
    if not files:
        there = ", ".join(sorted(name for name, _ in found)[:_LISTED]) or "nothing"
        raise StageError(
            ExitCode.DATA,
            "NoReadableFile",
            f"spec.source: {source.uri} holds no {' or '.join(SUFFIXES)} file; there is {there}",
        )
    return files


def _describe(name: str, path: Path) -> SourceFile:
    status = path.stat()
    return SourceFile(name, path, size=status.st_size, modified=status.st_mtime_ns)


def plan_units(files: Sequence[SourceFile], *, workers: int) -> list[Unit]:
    """Cuts the files into units, in source order.

    Every worker plans alone and comes to the same units; a small source is cut finer, so that each worker gets some.
    """
    total = sum(file.size for file in files)
    target = max(1, min(_UNIT_BYTES, -(-total // workers)))
    return [unit for file in files for unit in _cut(file, target)]


def share(count: int, *, worker: int, workers: int) -> range:
    """The units of one worker: neighbouring shares neither overlap nor leave a gap."""
    return range(count * worker // workers, count * (worker + 1) // workers)


def _cut(file: SourceFile, target: int) -> list[Unit]:
    if file.path.suffix.lower() == ".parquet":
        return _cut_row_groups(file, target)
    return [JsonlRange(file, start, min(start + target, file.size)) for start in range(0, file.size, target)]


def _cut_row_groups(file: SourceFile, target: int) -> list[Unit]:
    units: list[Unit] = []
    first, weight = 0, 0
    sizes = row_group_sizes(file)
    for number, size in enumerate(sizes, start=1):
        weight += size
        if weight >= target or number == len(sizes):
            units.append(RowGroups(file, first, number, weight))
            first, weight = number, 0
    return units
