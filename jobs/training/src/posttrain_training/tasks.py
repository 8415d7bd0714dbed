"""Tasks with a checkable answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.inputs import AnswerFormat, TaskDataset
from posttrain_runtime import answers
from posttrain_runtime.errors import StageError

from posttrain_training.rows import read_rows


@dataclass(frozen=True)
class Task:
    """A prompt and the gold answer."""

    prompt: str
    answer: str


def load_tasks(path: Path, *, field: str, dataset: TaskDataset, formats: Iterable[AnswerFormat]) -> list[Task]:
    """Reads tasks and checks that every gold answer can be read in each of ``formats``.

    Raises ``StageError`` (DATA) naming the row: a gold answer that cannot be matched would count as a wrong model.
    """
    rows = read_rows(path, field=field, columns=dataset.columns.model_dump(), limit=dataset.samples)
    readers = [answers.READERS[name] for name in formats]
    for number, row in enumerate(rows, start=1):
        if any(reader.gold(row["answer"]) is None for reader in readers):
            raise StageError(
                ExitCode.DATA,
                "GoldUnreadable",
                f"{field}.columns.answer: row {number} of {path.name} has {row['answer'][:80]!r}, which is not one "
                "number; correct it or drop the row",
            )
    return [Task(row["prompt"], row["answer"]) for row in rows]
