"""Reading files in pieces: no piece, field or file takes more memory than it may, and what is too large is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_training.preparation import source
from posttrain_training.preparation.source import Chunk, chunks
from pyarrow import parquet

ROWS: list[dict[str, Any]] = [{"prompt": str(number), "completion": "x" * 400} for number in range(20)]
TALKS: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": "x" * 400}]} for _ in range(20)]


def read(path: Path) -> list[Chunk]:
    return list(chunks([path], field="spec.dataset"))


def rows_of(path: Path) -> list[Any]:
    return [row for chunk in read(path) for row in chunk.rows]


def refused(path: Path) -> StageError:
    with pytest.raises(StageError) as caught:
        read(path)
    assert caught.value.code is ExitCode.DATA
    return caught.value


def as_json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITTEN: list[tuple[str, Callable[[Path, list[dict[str, Any]]], Path], list[dict[str, Any]]]] = [
    ("a.json", as_json, ROWS),
    ("a.csv", as_csv, ROWS),
    ("a.parquet", as_parquet, ROWS),
    ("b.json", as_json, TALKS),
    ("b.parquet", as_parquet, TALKS),
]


@pytest.mark.parametrize(("name", "write", "rows"), WRITTEN, ids=[name for name, _, _ in WRITTEN])
def test_a_chunk_is_bounded_by_its_text_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path, list[dict[str, Any]]], Path],
    rows: list[dict[str, Any]],
) -> None:
    monkeypatch.setattr(source, "_CHUNK_BYTES", 1000)
    found = read(write(tmp_path / name, rows))
    assert max(len(chunk.rows) for chunk in found) <= 3
    assert [row for chunk in found for row in chunk.rows] == rows
    assert [chunk.start for chunk in found][:2] == [0, len(found[0].rows)]


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rows, width = tmp_path / "a.parquet", 2000, 10_000
    table = pa.table({"text": [f"{number} ".ljust(width, "x") for number in range(rows)]})
    parquet.write_table(table, path, compression="none", use_dictionary=False, write_batch_size=4, data_page_size=width)
    del table
    assert parquet.ParquetFile(path).num_row_groups == 1
    monkeypatch.setattr(source, "_CHUNK_BYTES", 50 * width)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in chunks([path], field="spec.dataset")]
    assert max(held) < rows * width / 5


def test_a_field_of_csv_may_be_long(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 200_000, "completion": "y"}]
    assert rows_of(as_csv(tmp_path / "a.csv", rows)) == rows


def test_a_field_of_csv_that_nothing_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_CHUNK_BYTES", 1000)
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\n"a,b\n' + "a,b\n" * 1000, encoding="utf-8")
    error = refused(path)
    assert error.reason == "InvalidFile"
    assert error.message == (
        "spec.dataset: a.csv is not CSV (field larger than field limit (1000); is a quotation mark missing?)"
    )


def test_a_json_list_that_would_take_too_much_memory_is_told_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    error = refused(path)
    assert error.reason == "FileTooLarge"
    assert error.message == "spec.dataset: a.json is one value of more than 64 MiB; write it as .jsonl"


def large_jsonl(path: Path) -> None:
    """A line of a gigabyte, which no line break ends."""
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        file.truncate(1 << 30)


def large_json(path: Path) -> None:
    path.write_text(json.dumps([{"a": 1}, {"a": ["x" * (5 << 20)] * 2}]), encoding="utf-8")


def large_parquet(path: Path) -> None:
    parquet.write_table(pa.table({"a": ["1", "x" * (9 << 20)]}), path)


@pytest.mark.parametrize("write", [large_jsonl, large_json, large_parquet])
def test_a_row_whose_tokens_would_fill_the_memory_is_named(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / f"a.{write.__name__.partition('_')[2]}"
    write(path)
    error = refused(path)
    assert error.reason == "RowTooLarge"
    assert error.message == f"spec.dataset: {path.name}:2 has more than 8 MiB of text; split it or drop it"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[]", []),
        (' \n[ {"a": 1} ,\r\n\t{"a": [2, "]"]} ] \n', [{"a": 1}, {"a": [2, "]"]}]),
        ('\ufeff[{"a": "\u65e5"}]', [{"a": "\u65e5"}]),
        ('[{"a": Infinity}]', [{"a": float("inf")}]),
    ],
)
def test_a_json_list_is_read_item_by_item(tmp_path: Path, text: str, rows: list[Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert rows_of(path) == rows


@pytest.mark.parametrize(
    "text", ["", "[", "[,]", '[{"a": 1},]', '[{"a": 1} {"a": 2}]', '[{"a": 1}', '[{"a": 1}] x', "[{'a': 1}]", "[{]"]
)
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert refused(path).message.startswith("spec.dataset: a.json is not JSON (")


@pytest.mark.parametrize("text", ["{}", "3", "[3]", '[{"a": 1}, null]', '"[]"'])
def test_what_is_no_list_of_objects_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert refused(path).message == "spec.dataset: a.json is no list of objects"
