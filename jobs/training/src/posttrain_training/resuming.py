"""Going on from a checkpoint: which one, and what becomes of one that is whole and still cannot be loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import checkpoints
from posttrain_runtime.errors import StageError, classify
from transformers import TrainerCallback

from posttrain_training import gang


def choose(folder: Path, *, config_digest: str) -> checkpoints.Found:
    """The checkpoint that all ranks go on from; the leader chooses, because choosing sets damaged ones aside.

    Raises ``StageError`` in every rank alike.
    """
    found: checkpoints.Found | StageError | None = None
    if gang.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = checkpoints.newest(folder, config_digest=config_digest, world_size=gang.size())
        except StageError as error:
            found = error
    chosen: checkpoints.Found | StageError = gang.gather(found)[0]
    if isinstance(chosen, StageError):
        raise chosen
    return chosen


class Loading(TrainerCallback):
    """Sets a checkpoint aside that cannot be loaded, so that the next attempt takes the one before it.

    An attempt ends by it rather than trying the older one at once: other ranks and other pods may have loaded this one.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self._checkpoint = checkpoint

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._checkpoint = None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Around all that loads; errors from the first step on are none of its business.

        Raises ``StageError`` (STORAGE) for an error that speaks of the checkpoint: no lack of memory, no lost peer.
        """
        try:
            yield
        except Exception as error:
            unknown = classify(error).code is ExitCode.UNHANDLED and not gang.is_broken_group(error)
            if self._checkpoint is None or not unknown:
                raise
            told = checkpoints.set_aside(
                self._checkpoint, f"it cannot be loaded ({type(error).__name__}: {gang.first_line(error)})"
            )
            message = f"{told}; the next attempt goes on from the one before it"
            raise StageError(ExitCode.STORAGE, "CheckpointUnreadable", message) from error
