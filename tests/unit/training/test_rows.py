"""Reading datasets: what is read, in which order, and how bad input is named."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_training.rows import read_rows
from pyarrow import parquet

COLUMNS = {"prompt": "question", "answer": "gold"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, limit: int | None = None) -> list[dict[str, str]]:
    return read_rows(path, field="spec.dataset", columns=COLUMNS, limit=limit)


def refusal(path: Path) -> StageError:
    with pytest.raises(StageError) as caught:
        read(path)
    assert caught.value.code is ExitCode.DATA
    return caught.value


def test_columns_are_renamed_others_dropped_and_numbers_become_text(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"question": "1+1?", "gold": 2, "more": None}, {"question": "", "gold": "2.5"})
    assert read(path) == [{"prompt": "1+1?", "answer": "2"}, {"prompt": "", "answer": "2.5"}]


def test_a_folder_is_read_whole_in_the_order_of_its_paths_in_both_formats(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "part-1.jsonl", {"question": "b", "gold": 2})
    write(tmp_path / "part-2.jsonl", {"question": "c", "gold": 3})
    parquet.write_table(pa.Table.from_pylist([{"question": "a", "gold": 1}]), tmp_path / "data" / "part-0.parquet")
    (tmp_path / "README.md").write_text("no data", encoding="utf-8")
    assert [row["prompt"] for row in read(tmp_path)] == ["a", "b", "c"]


def test_only_the_first_rows_are_read_when_there_is_a_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"question": "a", "gold": 1}, {"question": "b", "gold": 2})
    path.write_text(path.read_text(encoding="utf-8") + "not reached\n", encoding="utf-8")
    assert len(read(path, limit=1)) == 1


def test_a_file_that_changed_within_the_same_time_stamp_is_read_anew(tmp_path: Path) -> None:
    import os

    path = write(tmp_path / "d.jsonl", {"question": "old", "gold": 1})
    times = path.stat()
    assert read(path)[0]["prompt"] == "old"
    write(path, {"question": "new", "gold": 1})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read(path)[0]["prompt"] == "new"


def test_a_missing_column_is_named_with_its_place_and_the_columns_there_are(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "d.jsonl", {"question": "a", "gold": 1}, {"question": "a", "solution": 1}))
    assert error.reason == "MissingColumn"
    assert error.message == "spec.dataset.columns.answer: d.jsonl:2 has no column 'gold'; it has question, solution"


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', "NaN}"])
def test_a_line_that_is_no_json_object_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "d.jsonl", {"question": "a", "gold": 1})
    path.write_text(path.read_text(encoding="utf-8") + "\n" + line + "\n", encoding="utf-8")
    error = refusal(path)
    assert error.reason == "InvalidRow"
    assert error.message.startswith("spec.dataset: d.jsonl:3 ")
    assert "write one JSON object a line" in error.message


def test_a_file_that_only_claims_to_be_parquet_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"question,gold\n1,2\n")
    error = refusal(path)
    assert error.reason == "InvalidFile"
    assert error.message.startswith("spec.dataset: d.parquet is no whole Parquet file")
    assert error.message.endswith("write or copy it anew")


@pytest.mark.parametrize("value", [None, True, ["a"], {"a": 1}])
def test_a_value_that_is_neither_text_nor_number_is_an_error(tmp_path: Path, value: object) -> None:
    error = refusal(write(tmp_path / "d.jsonl", {"question": value, "gold": 1}))
    assert error.reason == "WrongType"
    assert "d.jsonl:1" in error.message


def test_a_dataset_without_rows_or_without_data_files_is_an_error(tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "d.jsonl")).reason == "EmptyDataset"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").reason == "NoDataFiles"
    assert refusal(write(tmp_path / "d.txt")).reason == "NoDataFiles"
