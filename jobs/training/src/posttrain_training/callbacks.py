"""What happens around the optimizer steps: telling, stopping, sealing checkpoints, evaluating."""

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from posttrain_contract.metrics import LOSS
from posttrain_contract.progress import TRAINING
from posttrain_runtime import checkpoints
from posttrain_runtime.progress import ProgressReporter
from transformers import TrainerCallback

from posttrain_training import gang
from posttrain_training.divergence import Divergence


class Telling(TrainerCallback):
    """Progress and history from what the trainer logs, and the end of a run whose figures are no numbers.

    It must see the figures before a checkpoint is written, so that a diverged state is never saved.
    """

    def __init__(
        self,
        progress: ProgressReporter,
        figures: Mapping[str, str],
        extra: Callable[[], Mapping[str, float]],
        *,
        divergence: Divergence,
    ) -> None:
        self._progress = progress
        self._divergence = divergence
        self._figures = figures
        self._extra = extra

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.update(TRAINING, step=state.global_step, total=state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        named = {ours: logs[theirs] for theirs, ours in self._figures.items() if logs and logs.get(theirs) is not None}
        # The history file keeps the figures. The trainer's own list would be written into every checkpoint and grow.
        state.log_history.clear()
        if LOSS not in named:
            return
        for name in (LOSS, "gradientNorm"):
            if not math.isfinite(named.get(name, 0.0)):
                raise self._divergence.error(f"{name} is {named[name]}", step=state.global_step)
        named |= self._extra()
        if gang.rank() == 0:
            self._progress.record(state.global_step, named)
        self._progress.update(TRAINING, step=state.global_step, total=state.max_steps, metrics=named)


class Stopping(TrainerCallback):
    """Saves and leaves the loop once the ranks agree to stop. A run at its last step just ends."""

    def __init__(self, stop: gang.Stop) -> None:
        self._stop = stop
        self.stopped = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._stop.agreed() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True


class Checkpointing(TrainerCallback):
    """Looks before a checkpoint is saved, seals it when all ranks are done, and removes old ones.

    Weights that are no numbers are not saved: the last update may have spoiled them although its loss was fine.
    ``saving`` is ``stalls.saving_file`` of this rank.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        config_digest: str,
        expected_bytes: int,
        divergence: Divergence,
        saving: Path,
        protect: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """``protect`` gives the steps whose checkpoints are kept whatever comes after them."""
        self._folder = folder
        self._saving = saving
        self._divergence = divergence
        self._keep = keep
        self._protect = protect
        self._digest = config_digest
        self._expected_bytes = expected_bytes

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        if not control.should_save:
            return
        self._saving.touch()
        if not all(gang.gather(_is_finite(model))):
            raise self._divergence.error("the weights are no finite numbers", step=state.global_step)
        if gang.rank() == 0:
            checkpoints.make_room(
                self._folder, keep=self._keep, expected_bytes=self._expected_bytes, protect=self._protect()
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        gang.barrier()
        if gang.rank() == 0:
            checkpoints.seal(
                self._folder / f"checkpoint-{state.global_step}",
                step=state.global_step,
                world_size=gang.size(),
                config_digest=self._digest,
            )
            checkpoints.rotate(self._folder, keep=self._keep, protect=self._protect())
        # Sealing reads every byte; a rank that went on would only wait in its next step, and look as if it hung.
        gang.barrier()
        self._saving.unlink(missing_ok=True)


class NothingLeftError(Exception):
    """The run that is resumed has made its last step."""


class Beginning(TrainerCallback):
    """What happens when the model is where it will be trained, split among the ranks and loaded: no earlier.

    A run that begins is evaluated. One whose last step is made stops here, since the trainer would make one more.
    """

    def __init__(self, evaluate: Callable[[], None] | None) -> None:
        """``evaluate``: None for a run that is resumed."""
        self._evaluate = evaluate

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise NothingLeftError
        if self._evaluate is not None:
            self._evaluate()


class Evaluating(TrainerCallback):
    """Evaluates every so many steps; the last step is left to the evaluation after training.

    Add it before whoever looks at ``control.should_save``.
    """

    def __init__(self, evaluate: Callable[[int], bool], *, every_steps: int, owed: bool = False) -> None:
        """``evaluate`` says whether the step's state must be saved; ``owed``: begin with the step resumed from."""
        self._evaluate = evaluate
        self._every_steps = every_steps
        self._owed = owed

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._owed:
            self._evaluate(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._every_steps == 0 and state.global_step < state.max_steps:
            control.should_save |= self._evaluate(state.global_step)


def _is_finite(model: Any) -> bool:
    """Whether this rank's weights are numbers. ZeRO-3 leaves empty tensors in their place and keeps its share aside."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return all(bool(torch.isfinite(getattr(weights, "ds_tensor", weights)).all()) for weights in trained)
