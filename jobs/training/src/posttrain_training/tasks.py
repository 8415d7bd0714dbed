"""Tasks with a checkable answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.inputs import TaskDataset
from posttrain_runtime.answers import AnswerReader
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name

from posttrain_training.rows import read_rows


@dataclass(frozen=True)
class Task:
    """A prompt and the gold answer."""

    prompt: str
    answer: str


def load_tasks(path: Path, *, field: str, dataset: TaskDataset, readers: Iterable[AnswerReader]) -> list[Task]:
    """Reads tasks and checks that every gold answer can be read by each of ``readers``.

    Raises ``StageError`` (DATA) naming the row: a gold answer that cannot be matched would count as a wrong model.
    """
    rows = read_rows(path, field=field, columns=dataset.columns.model_dump(), limit=dataset.samples)
    for reader in readers:
        for number, row in enumerate(rows, start=1):
            if reader.gold(row["answer"]) is None:
                raise StageError(
                    ExitCode.DATA,
                    "GoldUnreadable",
                    f"{field}.columns.answer: row {number} of {shown_name(path)} has {row['answer'][:80]!r}, which is "
                    f"not {reader.wants}; correct it or drop the row",
                )
    return [Task(row["prompt"], row["answer"]) for row in rows]
