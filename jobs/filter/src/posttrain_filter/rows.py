"""Reading rows: JSON Lines by byte range, Parquet by row groups.

JSON values are copied as they were written (``msgspec.Raw``): only the label is decoded, so numbers keep all their
digits and text keeps its escapes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError

_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 1000
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True)
class SourceFile:
    """One file of the source."""

    name: str
    """Its path below the source, for people."""
    path: Path
    size: int
    modified: int
    """Time of the last change, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, or what is wrong with it."""

    position: int
    """Byte offset of a line, or number of a Parquet row; ``Unit.where`` turns it into words."""
    done: int
    """Bytes of the unit that are read once this row is."""
    values: Mapping[str, Any]
    """By column: ``msgspec.Raw`` from JSON Lines, Python values from Parquet."""
    fault: str | None = None


class Unit(Protocol):
    """A part of the source that is read in one go."""

    @property
    def weight(self) -> int:
        """Bytes to read."""

    @property
    def identity(self) -> str:
        """Text that changes when the file or the cut does."""

    def rows(self) -> Iterator[Row]:
        """Every row, in order; faulty ones with their fault."""

    def where(self, position: int) -> str:
        """FILE:LINE or FILE:ROW of a row, counted from 1."""


@dataclass(frozen=True)
class JsonlRange:
    """The lines of a file whose first byte lies in ``[start, end)``."""

    file: SourceFile
    start: int
    end: int

    @property
    def weight(self) -> int:
        return self.end - self.start

    @property
    def identity(self) -> str:
        return f"{self.file.name} {self.file.size} {self.file.modified} bytes {self.start}-{self.end}"

    def rows(self) -> Iterator[Row]:
        with self.file.path.open("rb") as file:
            if self.start:
                file.seek(self.start - 1)
                file.readline()
            position = file.tell()
            while position < self.end and (line := file.readline()):
                after = position + len(line)
                if position == 0:
                    line = line.removeprefix(_BOM)
                if line.strip():
                    yield _parse(line, position, min(after, self.end) - self.start)
                position = after

    def where(self, position: int) -> str:
        with self.file.path.open("rb") as file:
            before = sum(block.count(b"\n") for block in _blocks(file, position))
        return f"{self.file.name}:{before + 1}"


def _blocks(file: Any, length: int) -> Iterator[bytes]:
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        length -= len(block)
        yield block


def _parse(line: bytes, position: int, done: int) -> Row:
    try:
        line.decode()
        return Row(position, done, _decode(line))
    except UnicodeDecodeError as error:
        return Row(position, done, {}, f"the line is not UTF-8 ({error.reason} at byte {error.start})")
    except msgspec.ValidationError as error:
        return Row(position, done, {}, f"the line is no JSON object ({error})")
    except msgspec.DecodeError as error:
        return Row(position, done, {}, f"the line is not JSON ({error})")


@dataclass(frozen=True)
class RowGroups:
    """The row groups ``[first, last)`` of a Parquet file."""

    file: SourceFile
    first: int
    last: int
    weight: int

    @property
    def identity(self) -> str:
        return f"{self.file.name} {self.file.size} {self.file.modified} row groups {self.first}-{self.last}"

    def rows(self) -> Iterator[Row]:
        with _open(self.file) as parquet:
            counts = [parquet.metadata.row_group(group).num_rows for group in range(self.last)]
            first, total = sum(counts[: self.first]), sum(counts[self.first :])
            groups = list(range(self.first, self.last))
            number = first
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, self.weight * (number - first) // total, values)

    def where(self, position: int) -> str:
        return f"{self.file.name}:row {position}"


def row_group_sizes(file: SourceFile) -> list[int]:
    """Compressed bytes of each row group."""
    with _open(file) as parquet:
        return [_group_size(parquet.metadata.row_group(group)) for group in range(parquet.num_row_groups)]


def _group_size(group: Any) -> int:
    return sum(group.column(index).total_compressed_size for index in range(group.num_columns))


@contextmanager
def _open(file: SourceFile) -> Iterator[Any]:
    """A Parquet file to read from. Raises ``StageError`` (DATA) where its bytes make no sense."""
    try:
        with pq.ParquetFile(file.path) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StageError(
            ExitCode.DATA,
            "InvalidFile",
            f"spec.source: {file.name} is no whole Parquet file ({error}); replace or remove it",
        ) from error
