"""What to do about figures that are no numbers: once it may be the hardware, twice at the same step it is the run."""

import logging
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.files import write_json
from pydantic import ValidationError

from posttrain_training import gang

log = logging.getLogger(__name__)


class _Record(Model):
    """``divergence.json``: the steps at which attempts of this run ended by figures that are no numbers."""

    steps: tuple[int, ...] = ()


class Divergence:
    """Remembers, over the attempts of a run, at which steps figures were no numbers.

    Make it before the first step: all ranks then judge by the same record, which the leader changes later.
    """

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / layout.DIVERGENCE
        self._record = self._read()

    def _read(self) -> _Record:
        try:
            return _Record.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Record()
        except ValidationError as error:
            log.warning("%s cannot be read and counts as empty: %s", self._path.name, error)
            return _Record()

    def error(self, what: str, *, step: int) -> StageError:
        """The error for figures that are no numbers at a step; ``what`` says which.

        The first time at this step it is retriable (NOT_FINITE): the attempt goes on from a checkpoint before it,
        perhaps on another machine. The second time it is permanent (DIVERGED).
        """
        if step in self._record.steps:
            return StageError(
                ExitCode.DIVERGED,
                "Diverged",
                f"{what} at step {step}, for the second time; lower training.learningRate or "
                "training.maxGradientNorm, or look for broken rows",
            )
        if gang.rank() == 0:
            write_json(self._path, _Record(steps=(*self._record.steps, step)).dump())
        return StageError(
            ExitCode.NOT_FINITE,
            "NotFinite",
            f"{what} at step {step}; perhaps it was the hardware: one more attempt goes on from the last checkpoint",
        )
