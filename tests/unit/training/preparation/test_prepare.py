"""Preparing a dataset: the same bytes are prepared once, other bytes never taken for them, and a kill loses little."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract.examples import ExampleDataset
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import Preempted, StageError
from posttrain_training.preparation import prepare as preparing
from posttrain_training.preparation.key import Shape
from posttrain_training.preparation.prepare import Preparation, prepare
from posttrain_training.preparation.prepared import load_prepared
from posttrain_training.preparation.templates import TEMPLATES
from support.tiny_tokenizer import save_tokenizer

ROWS = [{"prompt": f"What is {number} plus two?", "completion": f"The answer is {number + 2}."} for number in range(40)]
Lines = list[dict[str, Any]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_tokenizer(folder, template=TEMPLATES["chatml"])
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of few rows, so that a small dataset has several."""
    monkeypatch.setattr("posttrain_training.preparation.source.CHUNK_ROWS", 4)
    monkeypatch.setattr(preparing, "_PART_ROWS", 8)


def task(
    path: Path, model: Path, *, packing: bool = False, max_length: int = 512, aside: bool = False, **dataset: Any
) -> Preparation:
    spec = ExampleDataset.parse({"uri": "pvc://data/any", **dataset})
    shape = Shape(max_length=max_length, packing=packing, validation=aside)
    return Preparation(spec, path, model, shape, "spec.dataset")


def write(path: Path, rows: Lines) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(wanted: Preparation, root: Path, *, stop: Callable[[], None] = lambda: None) -> Path:
    root.mkdir(exist_ok=True)
    return prepare(wanted, root, report=lambda *_: None, check_stop=stop)


def rows_of(folder: Path) -> Lines:
    return [dict(row) for row in load_prepared(folder / "artifact")]


def test_the_same_rows_are_prepared_once_wherever_they_lie(tmp_path: Path, model: Path) -> None:
    first = run(task(write(tmp_path / "one" / "a.jsonl", ROWS), model), tmp_path / "root")
    files = {path: path.stat().st_mtime_ns for path in first.rglob("*.arrow")}
    second = run(task(write(tmp_path / "other" / "b.jsonl", ROWS), model), tmp_path / "root")
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in second.rglob("*.arrow")} == files
    assert len(rows_of(first)) == len(ROWS)


def test_a_changed_byte_within_the_same_time_stamp_is_another_dataset(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    before, first = path.stat(), run(task(path, model), tmp_path / "root")
    path.write_bytes(path.read_bytes().replace(b"The answer is 2.", b"The answer is 3."))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = run(task(path, model), tmp_path / "root")
    assert second != first
    assert rows_of(second)[0] != rows_of(first)[0]
    assert rows_of(second)[1:] == rows_of(first)[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 64},
        {"packing": True},
        {"template": "alpaca"},
        {"loss": "all"},
        {"samples": 39},
        {"deduplicate": True},
        {"columns": {"system": "s"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_another_dataset(tmp_path: Path, model: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    assert run(task(path, model, **change), tmp_path / "root") != run(task(path, model), tmp_path / "root")


def test_another_tokenizer_or_template_is_another_dataset(tmp_path: Path, model: Path) -> None:
    path, root = write(tmp_path / "a.jsonl", ROWS), tmp_path / "root"
    first = run(task(path, model), root)
    save_tokenizer(tmp_path / "other", template=TEMPLATES["alpaca"])
    assert run(task(path, tmp_path / "other"), root) != first


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("packing", [False, True], ids=["one by one", "packed"])
def test_a_preparation_that_was_stopped_goes_on_where_it_was(tmp_path: Path, model: Path, *, packing: bool) -> None:
    wanted = task(write(tmp_path / "a.jsonl", ROWS), model, packing=packing)
    expected = rows_of(run(wanted, tmp_path / "undisturbed"))
    looks = 0

    def stop() -> None:
        nonlocal looks
        looks += 1
        if looks > 5:
            raise Preempted(saved=False)

    with pytest.raises(Preempted):
        run(wanted, tmp_path / "root", stop=stop)
    (folder,) = (tmp_path / "root").iterdir()
    done = {path.name: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    assert done
    assert not (folder / "artifact").exists()
    assert rows_of(run(wanted, tmp_path / "root")) == expected
    assert {name: (folder / "artifact" / name).stat().st_mtime_ns for name in done} == done


@pytest.mark.usefixtures("small_parts")
def test_a_half_written_part_is_made_again(tmp_path: Path, model: Path) -> None:
    wanted, root = task(write(tmp_path / "a.jsonl", ROWS), model), tmp_path / "root"
    folder = run(wanted, root)
    expected = rows_of(folder)
    (folder / "artifact").rename(folder / "parts")
    (folder / "artifact.json").unlink()
    with (folder / "parts" / "part-00002.arrow").open("r+b") as file:
        file.truncate(10)
    assert rows_of(run(wanted, root)) == expected


def test_a_damaged_dataset_is_made_again(tmp_path: Path, model: Path) -> None:
    wanted, root = task(write(tmp_path / "a.jsonl", ROWS), model), tmp_path / "root"
    folder = run(wanted, root)
    expected, part = rows_of(folder), folder / "artifact" / "part-00000.arrow"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert rows_of(run(wanted, root)) == expected


def test_of_two_who_prepare_at_once_one_does_and_both_have_it(tmp_path: Path, model: Path) -> None:
    wanted, root = task(write(tmp_path / "a.jsonl", ROWS), model), tmp_path / "root"
    root.mkdir()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(run(wanted, root))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    assert len(set(found)) == 1
    assert len(rows_of(found[0])) == len(ROWS)


def test_several_processes_prepare_what_one_does(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = task(write(tmp_path / "a.jsonl", ROWS * 100), model, packing=True)
    alone = rows_of(run(wanted, tmp_path / "alone"))
    monkeypatch.setattr(preparing, "_ALONE", 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert rows_of(run(wanted, tmp_path / "together")) == alone


def test_packed_rows_hold_the_same_tokens_and_say_where_each_ends(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    plain = rows_of(run(task(path, model), tmp_path / "root"))
    packed = rows_of(run(task(path, model, packing=True), tmp_path / "root"))
    assert len(packed) < len(plain)
    assert all(len(row["input_ids"]) <= 512 for row in packed)
    split = []
    for row in packed:
        ends = [sum(row["seq_lengths"][: number + 1]) for number in range(len(row["seq_lengths"]))]
        assert ends[-1] == len(row["input_ids"]) == len(row["labels"])
        split += [row["input_ids"][begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert sorted(split) == sorted(row["input_ids"] for row in plain)


class TestSelection:
    """Which rows are used."""

    def texts(self, tmp_path: Path, model: Path, rows: Lines, **dataset: Any) -> list[str]:
        folder = run(task(write(tmp_path / "s.jsonl", rows), model, format="text", **dataset), tmp_path / "root")
        tokenizer = save_tokenizer(tmp_path / "copy", template=None)
        return [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in rows_of(folder)]

    def test_the_first_samples_are_used_unless_they_are_chosen_by_a_seed(self, tmp_path: Path, model: Path) -> None:
        rows = [{"text": f"row {number}"} for number in range(30)]
        assert self.texts(tmp_path, model, rows, samples=3) == ["row 0", "row 1", "row 2"]
        chosen = self.texts(tmp_path, model, rows, samples=3, shuffleSeed=1)
        assert chosen == self.texts(tmp_path, model, rows, samples=3, shuffleSeed=1)
        assert chosen != self.texts(tmp_path, model, rows, samples=3, shuffleSeed=2)
        assert len(self.texts(tmp_path, model, rows, samples=300)) == len(rows)

    def test_rows_that_say_the_same_are_used_once(self, tmp_path: Path, model: Path) -> None:
        rows = [{"text": text, "id": number} for number, text in enumerate(["a", "b", "a", "c", "b"])]
        assert self.texts(tmp_path, model, rows, deduplicate=True) == ["a", "b", "c"]
        assert self.texts(tmp_path, model, rows, deduplicate=True, samples=2) == ["a", "b"]

    def test_a_share_is_set_aside_and_the_rest_is_trained_on(self, tmp_path: Path, model: Path) -> None:
        rows = [{"text": f"row {number}"} for number in range(10)]
        for chosen in ({}, {"shuffleSeed": 3}, {"samples": 8}):
            wanted = {"validation": 0.25, **chosen}
            train = self.texts(tmp_path, model, rows, **wanted)
            aside = self.texts(tmp_path, model, rows, aside=True, **wanted)
            used = wanted.get("samples", len(rows))
            assert (len(train), len(aside)) == (used - 2, 2)
            assert len({*train, *aside}) == used
        assert self.texts(tmp_path, model, rows, aside=True, validation=0.001) == ["row 9"]

    def test_nothing_is_left_of_one_row_beside_validation(self, tmp_path: Path, model: Path) -> None:
        with pytest.raises(StageError, match=r"has no rows left beside those for validation"):
            self.texts(tmp_path, model, [{"text": "one"}], validation=0.5)


def refused(tmp_path: Path, model: Path, content: bytes, name: str = "a.jsonl", **dataset: Any) -> StageError:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StageError) as caught:
        run(task(path, model, **dataset), tmp_path / "root")
    return caught.value


FILES = {
    "a.csv": b'\xef\xbb\xbfprompt,completion\n"2,2?","4\n"\n',
    "a.json": b'[{"prompt": "2,2?", "completion": "4\\n"}]',
    "a.jsonl": b'\n{"prompt": "2,2?", "completion": "4\\n"}\n\n',
}


def test_every_kind_of_file_says_the_same(tmp_path: Path, model: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    parquet.write_table(pa.table({"prompt": ["2,2?"], "completion": ["4\n"]}), tmp_path / "a.parquet")
    found = [rows_of(run(task(tmp_path / name, model), tmp_path / "root")) for name in (*FILES, "a.parquet")]
    assert all(rows == found[0] for rows in found)
    assert len(found[0]) == 1


@pytest.mark.parametrize(
    "line",
    [
        b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}',
        b'{"prompt": "a", "completion": "b", "score": NaN, "far": 1e999}',
    ],
    ids=["byte order mark", "numbers of Python"],
)
def test_a_line_of_json_as_python_writes_it_is_read(tmp_path: Path, model: Path, line: bytes) -> None:
    plain, other = tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    plain.write_bytes(b'{"prompt": "a", "completion": "b"}\n')
    other.write_bytes(line + b"\n")
    found = [rows_of(run(task(path, model), tmp_path / "root")) for path in (plain, other)]
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_pairs_of_message_lists_are_prepared_as_pairs_of_texts(tmp_path: Path, model: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    asked = {"role": "user", "content": "2+2?"}
    lists = {
        name: [asked, {"role": "assistant", "content": text}] for name, text in (("chosen", "4"), ("rejected", "5"))
    }
    texts = write(tmp_path / "texts.jsonl", [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}])
    parquet.write_table(pa.Table.from_pylist([{"prompt_id": "x", **lists}]), tmp_path / "lists.parquet")
    found = [
        rows_of(run(task(path, model, format="preference"), tmp_path / "root"))
        for path in (texts, tmp_path / "lists.parquet")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 1


WRONG: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": \n', "a.jsonl:2 is not JSON"),
    ("a.jsonl", b"[1, 2]\n", "a.jsonl:1 is not a JSON object"),
    ("a.jsonl", b'{"prompt": "\xff", "completion": "b"}\n', "a.jsonl:1 is not UTF-8"),
    ("a.jsonl", b"", "a.jsonl has no rows"),
    ("a.jsonl", b"\n\n", "a.jsonl has no rows"),
    ("a.jsonl", b'{"prompt": "a", "completion": ""}\n', "column 'completion' of a.jsonl:1 is empty"),
    ("a.json", b'{"prompt": "a", "completion": "b"}', "a.json is no list of objects"),
    ("a.json", b'[{"prompt": "a"', "a.json is not JSON"),
    ("a.json", b'["\xff"]', "a.json is not UTF-8"),
    ("a.csv", b"prompt,completion\na,b,c\n", "a.csv has a row with another number of fields than its header"),
    ("a.csv", b"prompt,completion\na\n", "a.csv has a row with another number of fields than its header"),
    ("a.csv", b"prompt,completion\n\xff,b\n", "a.csv is not UTF-8"),
    ("a.csv", b"question,completion\na,b\n", "a.csv:2 has no column 'prompt'; it has completion, question"),
    ("a.parquet", b"PAR1 and nothing", "a.parquet is no whole Parquet file"),
    ("a.jsonl", '{"prompt": "a", "completion": "b"}\n'.encode("utf-16"), "a.jsonl:1 is not UTF-8"),
    (
        "a.jsonl",
        b'{"prompt": "a", "completion": "b"}\n{"prompt": "\\ud83d\\ude00", "completion": "\\uD83D?"}\n',
        "a.jsonl:2 has \\ud83d, half of a character",
    ),
    ("a.jsonl", b'{"prompt": "a", "completion": "\xed\xa0\x80"}\n', "a.jsonl:1 has \\ud800, half of a character"),
    ("a.json", b'[{"prompt": "a", "completion": "\\ude00"}]', "a.json:1 has \\ude00, half of a character"),
    ("a.json", b'{"prompt": "a"}\n{"prompt": "b"}\n', "a.json is not JSON (Extra data"),
    ("a.csv", b"prompt,completion,prompt\na,b,c\n", "a.csv has two columns 'prompt'"),
    ("a.txt", b"hello", "a.txt has no .jsonl, .json, .csv, .parquet file; there is a.txt"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG)
def test_a_file_that_cannot_be_used_is_told_with_its_row(
    tmp_path: Path, model: Path, name: str, content: bytes, message: str
) -> None:
    error = refused(tmp_path, model, content, name)
    assert error.code is ExitCode.DATA
    assert error.message.startswith("spec.dataset")
    assert message in error.message


def test_rows_that_are_all_too_long_are_told(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(
        StageError, match=r"no row has room for an answer within training.maxLength \(8 tokens\)"
    ) as caught:
        run(task(path, model, max_length=8), tmp_path / "root")
    assert caught.value.reason == "RowsTooLong"


def test_a_model_without_a_template_is_told_which_there_are(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "base", template=None)
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(StageError) as caught:
        run(task(path, tmp_path / "base"), tmp_path / "root")
    assert caught.value.reason == "ChatTemplateMissing"
    assert "dataset.template of a FineTuneJob to chatml, llama2 or alpaca" in caught.value.message
    assert rows_of(run(task(path, tmp_path / "base", template="llama2"), tmp_path / "root"))


def test_parquet_text_that_is_not_utf_8_is_told(tmp_path: Path, model: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    broken = pa.array([b"\xff"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"prompt": broken, "completion": ["b"]}), tmp_path / "a.parquet")
    error = refused(tmp_path, model, (tmp_path / "a.parquet").read_bytes(), "a.parquet")
    assert "a.parquet is not UTF-8" in error.message


def test_pairs_whose_questions_leave_no_room_are_told(tmp_path: Path, model: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "What is two plus two? " * 9, "chosen": "4", "rejected": "5"}])
    with pytest.raises(StageError, match=r"^spec.dataset: no row has room for an answer") as caught:
        run(task(path, model, max_length=16, format="preference"), tmp_path / "root")
    assert caught.value.reason == "RowsTooLong"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }}", "cannot render a conversation"),
        ("{{ messages[0].content }}", "leaves out the answer in a.jsonl:1, message 2"),
        ("{{ messages[-1].content }}", "renders the beginning of the conversation in a.jsonl:1 otherwise"),
    ],
    ids=["no template", "without answers", "the last message alone"],
)
def test_a_template_by_which_no_answer_can_be_told_is_refused(tmp_path: Path, template: str, message: str) -> None:
    save_tokenizer(tmp_path / "odd", template=template)
    with pytest.raises(StageError) as caught:
        run(task(write(tmp_path / "a.jsonl", ROWS), tmp_path / "odd"), tmp_path / "root")
    assert (caught.value.code, caught.value.reason) == (ExitCode.MODEL, "TemplateUnusable")
    assert caught.value.message.startswith(f"spec.dataset.template: the chat template {message}")
