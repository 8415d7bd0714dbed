"""Reading a dataset: an artifact or a .jsonl or .parquet file or folder, as rows of text columns.

Rows are read from the files every time. A cache keyed by path and time would serve old rows for a file that was
replaced within the clock's resolution.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from pyarrow import parquet

Row = dict[str, str]
_SUFFIXES = (".jsonl", ".parquet")


def read_rows(path: Path, *, field: str, columns: Mapping[str, str], limit: int | None) -> list[Row]:
    """The first ``limit`` rows (all when None), each with the keys of ``columns``.

    ``columns`` maps the names that the caller wants to the names in the files; ``field`` is the specification's path of
    the dataset. Numbers become their text. Raises ``StageError`` (DATA) for a missing column, an empty dataset, a value
    that is no text or number, and a line that is not a JSON object.
    """
    rows = list(islice(_pick(path, field=field, columns=columns), limit))
    if not rows:
        raise StageError(
            ExitCode.DATA, "EmptyDataset", f"{field}: {path.name} has no rows; name a dataset that has some"
        )
    return rows


def _pick(path: Path, *, field: str, columns: Mapping[str, str]) -> Iterator[Row]:
    for file in shards(path, field=field):
        for place, record in _records(file, field=field):
            yield {name: _text(record, column, f"{field}.columns.{name}", place) for name, column in columns.items()}


def shards(path: Path, *, field: str) -> list[Path]:
    """The data files of a dataset, sorted by path; raises ``StageError`` (DATA) when there are none."""
    if path.is_file():
        files = [path] if path.suffix in _SUFFIXES else []
    else:
        files = sorted(file for suffix in _SUFFIXES for file in path.rglob(f"*{suffix}") if file.is_file())
    if not files:
        raise StageError(
            ExitCode.DATA, "NoDataFiles", f"{field}: {path.name} is or has no .jsonl or .parquet file; name one"
        )
    return files


def _records(file: Path, *, field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every record with its place, such as ``part-00000.jsonl:17``."""
    return _parquet_records(file, field=field) if file.suffix == ".parquet" else _json_records(file, field=field)


def _json_records(file: Path, *, field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{file.name}:{number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise StageError(
                    ExitCode.DATA, "InvalidRow", f"{field}: {place} is not JSON ({error}); write one JSON object a line"
                ) from error
            if not isinstance(record, dict):
                raise StageError(
                    ExitCode.DATA, "InvalidRow", f"{field}: {place} is not a JSON object; write one JSON object a line"
                )
            yield place, record


def _parquet_records(file: Path, *, field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{file.name} row {number}", record
    except pa.ArrowInvalid as error:
        raise StageError(
            ExitCode.DATA,
            "InvalidFile",
            f"{field}: {file.name} is no whole Parquet file ({error}); write or copy it anew",
        ) from error


def _text(record: Mapping[str, Any], column: str, field: str, place: str) -> str:
    if column not in record:
        there = ", ".join(sorted(record))
        raise StageError(ExitCode.DATA, "MissingColumn", f"{field}: {place} has no column {column!r}; it has {there}")
    value = record[column]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise StageError(
        ExitCode.DATA,
        "WrongType",
        f"{field}: column {column!r} of {place} is {type(value).__name__}, not text; drop or convert such rows",
    )
