"""Prepared rows as columns of numbers, and as files that are mapped into memory."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from posttrain_runtime.files import unique

from posttrain_training.preparation.encoding import IGNORED, Row
from posttrain_training.preparation.packing import packed
from posttrain_training.preparation.tokens import Tokens

_COUNTS = b"posttrain"


@dataclass(frozen=True)
class Counts:
    """What became of some rows."""

    chunks: int = 0
    read: int = 0
    rows: int = 0
    dropped: int = 0
    """Rows of which nothing was left to learn."""
    full: int = 0
    """Rows that reach the limit of tokens; longer ones are cut to it."""
    tokens: int = 0
    learned: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        ours, theirs = asdict(self), asdict(other)
        return Counts(**{name: ours[name] + theirs[name] for name in ours})


@dataclass(frozen=True)
class Columns:
    """Rows as flat columns: the numbers of all rows one after the other, and where each row ends."""

    values: dict[str, Tokens]
    ends: dict[str, Tokens]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Columns":
        """The columns of rows, which all have the same names."""
        names = rows[0].columns.keys() if rows else ()
        return cls(
            {name: np.concatenate([row.columns[name] for row in rows]) for name in names},
            {name: np.cumsum([len(row.columns[name]) for row in rows], dtype=np.int32) for name in names},
        )

    def cells(self, name: str) -> list[Tokens]:
        """The numbers of one column, row by row."""
        return np.split(self.values[name], self.ends[name][:-1])

    def batch(self) -> pa.RecordBatch:
        """The same as Arrow lists of 32-bit integers."""
        arrays = [
            pa.ListArray.from_arrays(_array(np.concatenate([[0], ends])), _array(self.values[name]))
            for name, ends in self.ends.items()
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(self.ends))


def _array(numbers: Tokens) -> pa.Array:
    """Numbers as an Arrow array; ``pa.array`` would import pandas to see whether they are its own, half a second."""
    return pa.Array.from_buffers(pa.int32(), len(numbers), [None, pa.py_buffer(numbers.astype(np.int32))])


def pack(parts: Sequence[Columns], *, capacity: int) -> Columns:
    """Demonstrations packed into rows of at most ``capacity`` tokens; ``seq_lengths`` says where each one ends."""
    ids = [cell for part in parts for cell in part.cells("input_ids")]
    labels = [cell for part in parts for cell in part.cells("labels")]
    groups = packed([len(cell) for cell in ids], capacity=capacity)
    return Columns.of(
        [
            Row(
                {
                    "input_ids": np.concatenate([ids[number] for number in group]),
                    "labels": np.concatenate([labels[number] for number in group]),
                    "seq_lengths": np.array([len(ids[number]) for number in group], dtype=np.int32),
                }
            )
            for group in groups
        ]
    )


def learned(columns: Columns) -> int:
    """Tokens that are learned: those with a label, or those of both answers of pairs."""
    if "labels" in columns.values:
        return int((columns.values["labels"] != IGNORED).sum())
    return sum(len(columns.values[name]) for name in ("chosen_ids", "rejected_ids") if name in columns.values)


def write(path: Path, parts: Sequence[Columns], counts: Counts) -> None:
    """Writes rows as an Arrow stream under a temporary name, and renames it."""
    batches = [part.batch() for part in parts if part.ends]
    schema = (batches[0].schema if batches else pa.schema([])).with_metadata({_COUNTS: json.dumps(asdict(counts))})
    temporary = path.with_name(f"{unique(path.name)}.tmp")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for batch in batches:
                stream.write_batch(batch.replace_schema_metadata(schema.metadata))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_counts(path: Path) -> Counts | None:
    """What a file says of its rows; None where it is no whole file of ours."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            said: Any = json.loads((stream.schema.metadata or {}).get(_COUNTS, b"null"))
            return Counts(**said)
    except (OSError, pa.ArrowInvalid, TypeError, ValueError):
        return None
