"""The prepared rows of a run: made by the leading process, waited for by the others."""

import os
import time
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
    key: str


def prepared_rows(context: StageContext[FineTuneStage]) -> Path:
    """The folder of the rows that this run trains on.

    Raises ``StageError`` (DATA) also when an earlier attempt trained on others, and ``Preempted``.
    """
    if world_size() == 1 or os.environ.get("RANK", "0") == "0":
        return _prepare(context)
    context.progress.update("waiting for data")
    while (chosen := _read(context)) is None or chosen.attempt != context.config.run.attempt:
        context.check_stop()
        time.sleep(_POLL)
    return _root(context) / chosen.key / layout.ARTIFACT


def _prepare(context: StageContext[FineTuneStage]) -> Path:
    spec = context.config.spec
    task = Preparation(
        dataset=spec.dataset,
        path=context.input_path("dataset"),
        model=context.input_path("model"),
        shape=Shape(max_length=spec.training.max_length, packing=spec.training.packing),
        field="spec.dataset",
    )
    context.progress.update(PHASE)
    folder = prepare(
        task,
        _root(context),
        report=lambda done, total: context.progress.update(PHASE, step=done, total=total),
        check_stop=context.check_stop,
    )
    _choose(context, folder.name)
    return folder / layout.ARTIFACT


def _choose(context: StageContext[FineTuneStage], key: str) -> None:
    """Tells the other processes, unless an earlier attempt trained on other rows."""
    earlier = _read(context)
    if earlier is not None and earlier.key != key and (context.folder / layout.CHECKPOINTS).is_dir():
        raise StageError(
            ExitCode.DATA,
            "DataChanged",
            "spec.dataset: its rows, or the tokenizer, are not those that an earlier attempt trained on; put them "
            "back, or create the object anew to train on the new ones",
        )
    write_json(context.folder / layout.PREPARED_KEY, Chosen(attempt=context.config.run.attempt, key=key).dump())


def _read(context: StageContext[FineTuneStage]) -> Chosen | None:
    try:
        return Chosen.model_validate_json((context.folder / layout.PREPARED_KEY).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _root(context: StageContext[FineTuneStage]) -> Path:
    """Where the prepared datasets of the namespace are: jobs with the same rows share them."""
    return context.folder.parent.parent / layout.PREPARED
