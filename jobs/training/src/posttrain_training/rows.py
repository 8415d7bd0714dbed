"""Reading a dataset whole, as rows of text columns.

Rows are read from the files every time. A cache keyed by path and time would serve old rows for a file that was
replaced within the clock's resolution.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name

from posttrain_training.preparation.source import chunks, data_files, records

Row = dict[str, str]


def read_rows(path: Path, *, field: str, columns: Mapping[str, str], limit: int | None) -> list[Row]:
    """The first ``limit`` rows (all when None), each with the keys of ``columns``.

    ``columns`` maps the names that the caller wants to the names in the files; ``field`` is the specification's path of
    the dataset. Numbers become their text. Raises ``StageError`` (DATA) for a missing column, an empty dataset, a value
    that is no text or number, and a line that is not a JSON object.
    """
    rows = list(islice(_pick(path, field=field, columns=columns), limit))
    if not rows:
        raise StageError(
            ExitCode.DATA, "EmptyDataset", f"{field}: {shown_name(path)} has no rows; name a dataset that has some"
        )
    return rows


def _pick(path: Path, *, field: str, columns: Mapping[str, str]) -> Iterator[Row]:
    for chunk in chunks(data_files(path, field=field), field=field):
        for place, record in records(chunk, field=field):
            if record is not None:
                yield {
                    name: _text(record, column, f"{field}.columns.{name}", place) for name, column in columns.items()
                }


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
