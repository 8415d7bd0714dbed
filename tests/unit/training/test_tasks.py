"""Tasks with a checkable answer: a gold answer that nobody can read is told before anything is judged by it."""

import json
from pathlib import Path

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.inputs import AnswerFormat, TaskDataset
from posttrain_runtime.answers import reader
from posttrain_runtime.errors import StageError
from posttrain_training.tasks import Task, load_tasks

PATTERN = r"answer: (\w+)"


def load(path: Path, *formats: AnswerFormat) -> list[Task]:
    dataset = TaskDataset.parse({"uri": "pvc://data/any", "columns": {"prompt": "question", "answer": "gold"}})
    readers = [reader(name, PATTERN if name == "regex" else None) for name in formats]
    return load_tasks(path, field="spec.dataset", dataset=dataset, readers=readers)


def write(path: Path, *golds: str) -> Path:
    path.write_text("".join(json.dumps({"question": "?", "gold": gold}) + "\n" for gold in golds), encoding="utf-8")
    return path


def test_tasks_whose_gold_answers_can_be_read_are_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks.jsonl", "4", "so it is #### 5")
    assert load(path, "gsm8k") == [Task("?", "4"), Task("?", "so it is #### 5")]


@pytest.mark.parametrize(
    ("name", "right", "wrong", "wants"),
    [
        ("gsm8k", "#### 4", "four", "one number"),
        ("gsm8k", "4", "#### 4 or 5", "one number"),
        ("boxed", r"\boxed{x}", "", "an answer in LaTeX"),
        ("choice", "B", "B or C", "one letter, A to J"),
        ("regex", "answer: x", " ", "some text"),
    ],
)
def test_a_gold_answer_that_cannot_be_read_is_named_with_its_row(
    tmp_path: Path, name: AnswerFormat, right: str, wrong: str, wants: str
) -> None:
    with pytest.raises(StageError) as caught:
        load(write(tmp_path / "tasks.jsonl", right, wrong), name)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "GoldUnreadable")
    assert caught.value.message == (
        f"spec.dataset.columns.answer: row 2 of tasks.jsonl has {wrong!r}, which is not {wants}; correct it or drop "
        "the row"
    )


def test_every_reader_has_to_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks.jsonl", "B")
    assert load(path, "choice") == [Task("?", "B")]
    with pytest.raises(StageError, match="which is not one number"):
        load(path, "choice", "gsm8k")
