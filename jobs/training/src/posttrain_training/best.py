"""Which evaluated step is published: the best one, whose checkpoint then outlives rotation."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from posttrain_contract.metrics import EXACT_MATCH, PERPLEXITY
from posttrain_runtime import checkpoints

from posttrain_training import gang
from posttrain_training.history import History

_LOWER_IS_BETTER = {EXACT_MATCH: False, PERPLEXITY: True}


class Best:
    """The best step so far, by one figure. Of equal ones the earliest is the best, and step 0 never is."""

    def __init__(self, figure: str, *, folder: Path, history: History, resumed_at: int) -> None:
        """``folder`` has the checkpoints; steps up to ``resumed_at`` were evaluated by earlier attempts.

        A step whose checkpoint is gone or broken cannot be published and does not count. The leading rank looks, since
        others may see the files later.
        """
        self._figure = figure
        self._sign = -1.0 if _LOWER_IS_BETTER[figure] else 1.0
        self._step, self._value = 0, 0.0
        for step, value in gang.gather(_past(figure, folder=folder, history=history, resumed_at=resumed_at))[0]:
            self.see(step, {figure: value})

    def see(self, step: int, scores: Mapping[str, float]) -> bool:
        """Takes the scores of a step into account; says whether it is the best now."""
        value = scores[self._figure] * self._sign
        if step == 0 or math.isnan(value) or (self._step and value <= self._value):
            return False
        self._step, self._value = step, value
        return True

    @property
    def step(self) -> int:
        """The best step; 0 before the first."""
        return self._step

    def protected(self) -> Collection[int]:
        """The steps whose checkpoints rotation must leave."""
        return {self._step} - {0}


def _past(figure: str, *, folder: Path, history: History, resumed_at: int) -> list[tuple[int, float]]:
    if gang.rank() != 0:
        return []
    there = set(checkpoints.whole(folder))
    return [(step, value) for step, value in history.of(figure).items() if step <= resumed_at and step in there]
