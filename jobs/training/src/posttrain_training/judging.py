"""Evaluating a model while it is trained: all that scores it, and which step is the best."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from posttrain_runtime.errors import Preempted
from posttrain_runtime.progress import ProgressReporter

from posttrain_training import gang
from posttrain_training.best import Best
from posttrain_training.evaluation import PHASE
from posttrain_training.history import History

log = logging.getLogger(__name__)


class Scorer(Protocol):
    """One way to judge a model."""

    def score(self, model: Any, *, step: int) -> float:
        """The figure of a step, the same in every rank. Raises ``Preempted`` when the run was asked to stop."""


class Judge:
    """Scores a model by every scorer; with none it does nothing."""

    def __init__(self, scorers: Mapping[str, Scorer], *, best: Best | None, progress: ProgressReporter) -> None:
        """``scorers`` by the names of their figures; ``best`` follows one of them."""
        self._scorers = scorers
        self._progress = progress
        self.best = best
        self.timed: Callable[[], AbstractContextManager[None]] = nullcontext
        """Around every evaluation."""

    def evaluate(self, model: Any, *, step: int, saved: bool) -> bool:
        """Scores the state of a step; says whether it is the best so far.

        Raises ``Preempted``, as ``saved`` or not, when the run was asked to stop.
        """
        if not self._scorers:
            return False
        self._progress.update(PHASE, step=step)
        try:
            with self.timed():
                scores = {name: scorer.score(model, step=step) for name, scorer in self._scorers.items()}
        except Preempted as stopped:
            raise Preempted(saved=saved, step=step) from stopped
        if gang.rank() == 0:
            self._progress.record(step, scores)
        log.info("held-out at step %d: %s", step, " ".join(f"{name} {value:.4g}" for name, value in scores.items()))
        return self.best is not None and self.best.see(step, scores)

    def evaluate_between(self, model: Any, step: int) -> bool:
        """The same in the middle of training; says whether the state must be saved.

        A stop request ends the evaluation; the run itself stops at the end of the step, where it can save, and the
        next attempt makes up for the evaluation.
        """
        try:
            return self.evaluate(model, step=step, saved=True)
        except Preempted:
            log.info("the evaluation at step %d was left unfinished", step)
            return False

    def owes(self, step: int, *, every_steps: int, history: History) -> bool:
        """Whether an earlier attempt saved this step but did not finish its evaluation; the leading rank decides."""
        missing = any(step not in history.of(name) for name in self._scorers)
        decided: bool = gang.gather(step > 0 and step % every_steps == 0 and missing)[0]
        return decided
