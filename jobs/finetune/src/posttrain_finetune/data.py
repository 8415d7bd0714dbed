"""The prepared rows of a run: made by the leading process, waited for by the others."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.files import write_json
from posttrain_runtime.ranks import world_size
from posttrain_training.preparation.key import Shape
from posttrain_training.preparation.prepare import Preparation, prepare
from pydantic import ValidationError

_POLL = 0.2
PHASE = "preparing data"


class Chosen(Model):
    """``prepared.json``: which prepared dataset the run trains on, told by each attempt."""

    attempt: int
    train: str
    validation: str | None = None


@dataclass(frozen=True)
class Rows:
    """The folders of prepared rows."""

    train: Path
    validation: Path | None


def prepared_rows(context: StageContext[FineTuneStage]) -> Rows:
    """The rows that this run trains on, and those that it is judged by.

    Raises ``StageError`` (DATA) also when an earlier attempt trained on others, and ``Preempted``.
    """
    if world_size() == 1 or os.environ.get("RANK", "0") == "0":
        return _rows(context, _prepare(context))
    while (chosen := _read(context)) is None or chosen.attempt != context.config.run.attempt:
        context.check_stop()
        context.progress.update("waiting for data")  # again and again: whoever is silent for long counts as hung
        time.sleep(_POLL)
    return _rows(context, chosen)


def _rows(context: StageContext[FineTuneStage], chosen: Chosen) -> Rows:
    root = _root(context)
    validation = None if chosen.validation is None else root / chosen.validation / layout.ARTIFACT
    return Rows(root / chosen.train / layout.ARTIFACT, validation)


def _prepare(context: StageContext[FineTuneStage]) -> Chosen:
    """Prepares the rows and tells the other processes where they are."""
    dataset, training = context.config.spec.dataset, context.config.spec.training
    train = _prepare_share(context, Shape(max_length=training.max_length, packing=training.packing))
    validation = None
    if dataset.validation is not None:
        validation = _prepare_share(context, Shape(max_length=training.max_length, packing=False, validation=True))
    chosen = Chosen(attempt=context.config.run.attempt, train=train, validation=validation)
    _choose(context, chosen)
    return chosen


def _prepare_share(context: StageContext[FineTuneStage], shape: Shape) -> str:
    task = Preparation(
        dataset=context.config.spec.dataset,
        path=context.input_path("dataset"),
        model=context.input_path("model"),
        shape=shape,
        field="spec.dataset",
    )
    context.progress.update(PHASE)
    folder = prepare(
        task,
        _root(context),
        report=lambda done, total: context.progress.update(PHASE, step=done, total=total),
        check_stop=context.check_stop,
    )
    return folder.name


def _choose(context: StageContext[FineTuneStage], chosen: Chosen) -> None:
    """Writes the choice down, unless an earlier attempt trained on other rows."""
    earlier = _read(context)
    changed = earlier is not None and (earlier.train, earlier.validation) != (chosen.train, chosen.validation)
    if changed and (context.folder / layout.CHECKPOINTS).is_dir():
        raise StageError(
            ExitCode.DATA,
            "DataChanged",
            "spec.dataset: its rows, or the tokenizer, are not those that an earlier attempt trained on; put them "
            "back, or create the object anew to train on the new ones",
        )
    write_json(context.folder / layout.PREPARED_KEY, chosen.dump())


def _read(context: StageContext[FineTuneStage]) -> Chosen | None:
    try:
        return Chosen.model_validate_json((context.folder / layout.PREPARED_KEY).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _root(context: StageContext[FineTuneStage]) -> Path:
    """Where the prepared datasets of the namespace are: jobs with the same rows share them."""
    return context.folder.parent.parent / layout.PREPARED
