"""Reading a dataset in pieces, whatever its size: .jsonl, .json, .csv and .parquet files."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name
from pyarrow import parquet

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
CHUNK_ROWS = 1000
_LARGEST_JSON = 64 << 20
"""A .json file is one value, whose text is read whole; as text it may take four times its bytes."""

_CHUNK_BYTES = 8 << 20
"""Text of one chunk, and so of one row, and of one field of a .csv file."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escapes that stand for halves of characters; whole ones are written with two."""

_PAGE_BYTES = 1 << 20

_SPACE = re.compile(r"[ \t\n\r]*")

Record = Mapping[str, Any]
Row = bytes | Record
"""A line of a .jsonl file, or what another format says of a row."""


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring rows of one file, not yet parsed where that takes time."""

    file: str
    first: int
    """The number of the first row in its file (its line in a .jsonl file), counted from 1."""
    start: int
    """How many rows of the dataset are before it."""
    rows: Sequence[Row]


def data_files(path: Path, *, field: str) -> list[Path]:
    """The data files of a dataset, sorted by path. Raises ``StageError`` (DATA) when there are none."""
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    files = sorted(file for file in found if file.suffix.lower() in SUFFIXES)
    if not files:
        there = ", ".join(sorted(file.name for file in found)[:10]) or "nothing"
        raise _error("NoDataFiles", field, f"{shown_name(path)} has no {', '.join(SUFFIXES)} file; there is {there}")
    return files


def chunks(files: Sequence[Path], *, field: str) -> Iterator[Chunk]:
    """All rows of the files in order. Raises ``StageError`` (DATA) for a file that cannot be read."""
    start = 0
    for file in files:
        first = 2 if file.suffix.lower() == ".csv" else 1
        for part in _pieces(_READERS[file.suffix.lower()](file, field), file, first=first, field=field):
            yield Chunk(file.name, first, start, part)
            first += len(part)
            start += len(part)


def _pieces(rows: Iterator[Row], file: Path, *, first: int, field: str) -> Iterator[list[Row]]:
    """Neighbouring rows, few enough to be held in memory many times over.

    Raises ``StageError`` (DATA) for a row that alone is too much for that.
    """
    piece: list[Row] = []
    size = 0
    for number, row in enumerate(rows, start=first):
        if (length := _size(row)) > _CHUNK_BYTES:
            what = f"{file.name}:{number} has more than {_CHUNK_BYTES >> 20} MiB of text; split it or drop it"
            raise _error("RowTooLarge", field, what)
        piece.append(row)
        size += length
        if len(piece) >= CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _size(value: Any) -> int:
    """About how much text a row holds, at any depth."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8


def records(chunk: Chunk, *, field: str) -> Iterator[tuple[str, Record | None]]:
    """Every row of a chunk with its place, such as ``part-00000.jsonl:17``; None for an empty line.

    Raises ``StageError`` (DATA) for a line that is no JSON object.
    """
    for number, row in enumerate(chunk.rows, start=chunk.first):
        place = f"{chunk.file}:{number}"
        if not isinstance(row, bytes):
            yield place, row
        elif row.strip():
            yield place, _parsed(row, place, field)
        else:
            yield place, None


def _parsed(line: bytes, place: str, field: str) -> Record:
    try:
        value = msgspec.json.decode(line)
    except ValueError:
        value = _with_care(line, place, field)
    if not isinstance(value, dict):
        raise _error("InvalidRow", field, f"{place} is not a JSON object; write one JSON object a line")
    return value


def _with_care(line: bytes, place: str, field: str) -> Any:
    """A line that the fast and strict parser refuses: it may be JSON as Python writes it, such as NaN."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise _error("InvalidRow", field, f"{place} is not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except ValueError as error:
        raise _error("InvalidRow", field, f"{place} is not JSON ({error}); write one JSON object a line") from error
    _check_text(value, place, field)
    return value


def _check_text(value: Any, place: str, field: str) -> None:
    """Raises ``StageError`` (DATA) where an escape is half of a character, which JSON allows and no text has."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.start + 1].encode("ascii", "backslashreplace").decode()
        what = f"{place} has {half}, half of a character without its other half; write the text anew or drop such rows"
        raise _error("InvalidText", field, what) from error


def _lines(file: Path, _: str) -> Iterator[bytes]:
    with file.open("rb") as lines:
        while line := lines.readline(_CHUNK_BYTES + 1):  # the rest of a longer one is never read
            yield line


def _json_values(file: Path, field: str) -> Iterator[Record]:
    if file.stat().st_size > _LARGEST_JSON:
        limit = _LARGEST_JSON >> 20
        raise _error("FileTooLarge", field, f"{file.name} is one value of more than {limit} MiB; write it as .jsonl")
    try:
        data = file.read_bytes()
        text = data.decode(json.detect_encoding(data))
        halves = _SURROGATE.search(data) is not None
        del data
        for number, item in enumerate(_items(text), start=1):
            if not isinstance(item, dict):
                raise _error("InvalidFile", field, f"{file.name} is no list of objects")
            if halves:
                _check_text(item, f"{file.name}:{number}", field)
            yield item
    except UnicodeDecodeError as error:
        raise _error("InvalidFile", field, f"{file.name} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except ValueError as error:
        what = f"{file.name} is not JSON ({error}); a .json file is one list of objects, a .jsonl file has one a line"
        raise _error("InvalidFile", field, what) from error


def _items(text: str) -> Iterator[Any]:
    """What a JSON list holds, one by one; None for any other JSON. Raises ``ValueError``."""
    decoder, end = json.JSONDecoder(), _past_space(text, 0)
    if text[end : end + 1] != "[":
        json.loads(text)
        yield None
        return
    end = _past_space(text, end + 1)
    while text[end : end + 1] != "]":
        item, end = decoder.raw_decode(text, end)
        yield item
        end = _past_space(text, end)
        if text[end : end + 1] == ",":
            end = _past_space(text, end + 1)
            if text[end : end + 1] == "]":
                raise json.JSONDecodeError("Expecting value", text, end)
        elif text[end : end + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
    if (end := _past_space(text, end + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _past_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def _csv_rows(file: Path, field: str) -> Iterator[Record]:
    csv.field_size_limit(_CHUNK_BYTES)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            _check_header(reader.fieldnames or (), file, field)
            for row in reader:
                if None in row or None in row.values():
                    raise _error(
                        "InvalidFile", field, f"{file.name} has a row with another number of fields than its header"
                    )
                yield row
    except UnicodeDecodeError as error:
        raise _error("InvalidFile", field, f"{file.name} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        hint = "; is a quotation mark missing?" if "field limit" in str(error) else ""
        raise _error("InvalidFile", field, f"{file.name} is not CSV ({error}{hint})") from error


def _check_header(names: Sequence[str], file: Path, field: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _error("InvalidFile", field, f"{file.name} has two columns {twice[0]!r}; rename one or remove it")


def _parquet_rows(file: Path, field: str) -> Iterator[Record]:
    try:
        # Without these, all of a row group is in memory at once.
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=_PAGE_BYTES) as table:
            for number in range(table.num_row_groups):
                group = table.metadata.row_group(number)
                for batch in table.iter_batches(_few(group.num_rows, group.total_byte_size), row_groups=[number]):
                    few = _few(batch.num_rows, batch.nbytes)
                    for start in range(0, batch.num_rows, few):
                        rows: list[Record] = batch.slice(start, few).to_pylist()
                        yield from rows
    except UnicodeDecodeError as error:
        raise _error("InvalidFile", field, f"{file.name} is not UTF-8 ({error.reason}); write its text anew") from error
    except pa.ArrowInvalid as error:
        what = f"{file.name} is no whole Parquet file ({error}); write or copy it anew"
        raise _error("InvalidFile", field, what) from error


def _few(rows: int, size: int) -> int:
    """How many rows of this many bytes together are a chunk."""
    return max(1, min(CHUNK_ROWS, _CHUNK_BYTES * rows // max(1, size)))


_READERS: Mapping[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _lines,
    ".json": _json_values,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _error(reason: str, field: str, message: str) -> StageError:
    return StageError(ExitCode.DATA, reason, f"{field}: {message}")
