"""JSON Lines to Parquet in two passes: the first finds the schema of all rows, the second writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError

from posttrain_upload.schema import MixedTypesError, infer, merge_fields, settle

_BATCH_BYTES = 16 << 20
_SHARD_BYTES = 512 << 20
"""JSON bytes that go into one Parquet file: about 200 MB of Parquet, well below what the Hub asks for."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode

Tell = Callable[[str, int, int], None]
"""Called with phase, bytes done and bytes in all; may raise to stop."""


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of one file."""

    file: str
    first_line: int
    rows: list[dict[str, Any]]
    done: int
    """Bytes of all files that are read once this batch is."""

    def column(self, name: str) -> list[Any]:
        """The values of a column, None where a row lacks it."""
        return [row.get(name) for row in self.rows]


@dataclass(frozen=True)
class Dataset:
    """What was converted."""

    rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Converter:
    """Converts the JSON Lines files of one dataset."""

    files: Sequence[Path]
    source: str
    """The field of the specification, for messages."""
    tell: Tell
    _size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_size", sum(path.stat().st_size for path in self.files))

    def convert(self, folder: Path) -> Dataset:
        """Writes ``train-0000i-of-0000N.parquet`` into a folder.

        Raises ``StageError`` (DATA) naming column and line when no one type holds a column.
        """
        rows, schema = self._survey()
        shards = max(1, -(-self._size // _SHARD_BYTES))
        folder.mkdir(parents=True, exist_ok=True)
        with _Shards(folder, schema, rows=rows, shards=shards) as output:
            for batch in self._batches("converting"):
                output.write(self._to_arrow(batch, schema))
        return Dataset(rows, tuple(schema.names))

    def _survey(self) -> tuple[int, Any]:
        rows = 0
        kinds: dict[str, Any] = {}
        for batch in self._batches("reading"):
            rows += len(batch.rows)
            names = dict.fromkeys(name for row in batch.rows for name in row)
            for name in names:
                kinds = self._widen(kinds, batch, name)
        try:
            return rows, pa.schema([(name, settle(kind, path=name)) for name, kind in kinds.items()])
        except ValueError as error:
            raise self._fault(f"column {error} holds objects without fields, which Parquet cannot hold") from error

    def _widen(self, kinds: dict[str, Any], batch: Batch, name: str) -> dict[str, Any]:
        values = batch.column(name)
        try:
            return merge_fields(kinds, {name: infer(values, path=name)})
        except (MixedTypesError, OverflowError):
            return self._widen_by_row(kinds, batch, name, values)

    def _widen_by_row(self, kinds: dict[str, Any], batch: Batch, name: str, values: list[Any]) -> dict[str, Any]:
        """The same row by row, which finds the row that is at fault."""
        for number, value in enumerate(values):
            where = f"{batch.file}:{batch.first_line + number}"
            try:
                kinds = merge_fields(kinds, {name: infer([value], path=name)})
            except MixedTypesError as error:
                raise self._fault(
                    f"{where}: column {error.path} is {error.second} here and {error.first} in earlier rows"
                ) from error
            except OverflowError as error:
                raise self._fault(f"{where}: column {name} holds an integer beyond 64 bits") from error
        return kinds

    def _to_arrow(self, batch: Batch, schema: Any) -> Any:
        arrays = []
        for item in schema:
            try:
                arrays.append(pa.array(batch.column(item.name), type=item.type))
            except pa.ArrowInvalid as error:
                last = batch.first_line + len(batch.rows) - 1
                raise self._fault(
                    f"{batch.file}:{batch.first_line}-{last}: column {item.name} does not fit {item.type}: {error}"
                ) from error
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _fault(self, message: str) -> StageError:
        return StageError(ExitCode.DATA, "InvalidColumn", f"{self.source}: {message}; make the column uniform")

    def _batches(self, phase: str) -> Iterator[Batch]:
        before = 0
        for path in self.files:
            for batch in _read(path, self.source, before):
                yield batch
                self.tell(phase, batch.done, self._size)
            before += path.stat().st_size


def _read(path: Path, source: str, before: int) -> Iterator[Batch]:
    rows: list[dict[str, Any]] = []
    first, size, done = 1, 0, before
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(_decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StageError(
                    ExitCode.DATA, "InvalidRow", f"{source}: {path.name}:{number} is no JSON object ({error})"
                ) from error
            size += len(line)
            done += len(line)
            if size >= _BATCH_BYTES:
                yield Batch(path.name, first, rows, done)
                rows, first, size = [], number + 1, 0
    if rows:
        yield Batch(path.name, first, rows, done)


class _Shards:
    """Parquet files of equal row counts, filled one after another."""

    def __init__(self, folder: Path, schema: Any, *, rows: int, shards: int) -> None:
        self._paths = [folder / f"train-{index:05d}-of-{shards:05d}.parquet" for index in range(shards)]
        self._schema = schema
        self._per_shard = max(1, -(-rows // shards))
        self._written = 0
        self._stack = ExitStack()
        self._writer = self._open(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, batch: Any) -> None:
        """Appends rows; goes on to the next file when one is full."""
        while batch.num_rows:
            if self._written and self._written % self._per_shard == 0:
                self._stack.close()
                self._writer = self._open(self._written // self._per_shard)
            part = batch.slice(0, self._per_shard - self._written % self._per_shard)
            self._writer.write_batch(part)
            self._written += part.num_rows
            batch = batch.slice(part.num_rows)

    def _open(self, index: int) -> Any:
        # Chunks that follow the content let the Hub store only what changed in the next version.
        return self._stack.enter_context(
            pq.ParquetWriter(self._paths[index], self._schema, compression="zstd", use_content_defined_chunking=True)
        )
