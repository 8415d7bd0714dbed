"""One training run from its newest checkpoint to its last step, the same for every trainer."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.metrics import EXACT_MATCH, EXACT_MATCH_BEFORE, FIRST_LOSS, LOSS
from posttrain_contract.stage import FineTuneStage, RLStage
from posttrain_contract.training import EVALUATION_INPUT
from posttrain_runtime import checkpoints
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import Preempted
from posttrain_runtime.ranks import RankOutcome
from transformers import PrinterCallback

from posttrain_training import export, gang
from posttrain_training.callbacks import Checkpointing, Evaluating, Stopping, Telling
from posttrain_training.evaluation import Evaluator
from posttrain_training.history import History
from posttrain_training.models import count_parameters
from posttrain_training.tokenizers import load_tokenizer

log = logging.getLogger(__name__)

FIGURES: Mapping[str, str] = {"loss": LOSS, "grad_norm": "gradientNorm", "learning_rate": "learningRate"}
"""What every trainer logs, and how our history calls it."""
_RECENT_STEPS = 10
_BYTES_PER_PARAMETER = 12
"""Weights and the two moments of AdamW, in float32."""


class Session:
    """Evaluation, checkpoints and the stop request around one trainer.

    Make it after the trainer's arguments, which start the process group, and before anything expensive: it checks the
    checkpoints and the held-out tasks.
    """

    def __init__(
        self, context: StageContext[FineTuneStage] | StageContext[RLStage], *, device: Any, tokenizer: Any
    ) -> None:
        self._context = context
        self._spec = context.config.spec
        self._tokenizer = tokenizer
        self._folder = context.folder / layout.CHECKPOINTS
        self.stop = gang.Stop(context.stop, device=device)
        self.resume = self._newest()
        self._evaluator = self._make_evaluator()

    def _newest(self) -> Path | None:
        """The leader chooses the checkpoint, because choosing sets damaged ones aside."""
        found = None
        if gang.rank() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = checkpoints.newest(self._folder, config_digest=self._context.digest)
        chosen: Path | None = gang.gather(found)[0]
        if chosen is not None:
            log.info("going on from %s", chosen.name)
        return chosen

    def _make_evaluator(self) -> Evaluator | None:
        if self._spec.evaluation is None:
            return None
        return Evaluator(
            self._spec.evaluation.generate,
            path=self._context.input_path(EVALUATION_INPUT),
            tokenizer=self._tokenizer,
            run_folder=self._context.folder,
            stop=self.stop,
        )

    def run(self, trainer: Any, *, figures: Mapping[str, str], extra: Callable[[], Mapping[str, float]] = dict) -> int:
        """Trains to the last step and returns its number.

        ``figures`` maps names that this trainer logs beside ``FIGURES`` to names of our history; ``extra`` gives
        further figures of the present step. Raises ``Preempted`` when the run was asked to stop.
        """
        if self.resume is None:
            self._evaluate(trainer.model, step=0, saved=False)
        if self.resume is not None and _is_finished(self.resume):
            # The trainer would do one step more than asked for; only the end of the run is missing.
            trainer._load_from_checkpoint(str(self.resume))  # noqa: SLF001 - there is no public way
            step = _saved_step(self.resume)
        else:
            step = self._train(trainer, Telling(self._context.progress, {**FIGURES, **figures}, extra))
        self._evaluate(trainer.model, step=step, saved=True)
        return step

    def _train(self, trainer: Any, telling: Telling) -> int:
        stopping = Stopping(self.stop)
        trainer.remove_callback(PrinterCallback)
        # TRL would write a model card among the checkpoints, with each of them.
        trainer.create_model_card = lambda **_: None
        if self._spec.evaluation is not None and (every := self._spec.evaluation.every_steps) is not None:
            trainer.add_callback(
                Evaluating(lambda step: self._evaluate_between(trainer.model, step), every_steps=every)
            )
        trainer.add_callback(stopping)
        trainer.add_callback(telling)
        trainer.add_callback(
            Checkpointing(
                self._folder,
                keep=self._spec.checkpoints.keep,
                config_digest=self._context.digest,
                expected_bytes=count_parameters(trainer.model) * _BYTES_PER_PARAMETER,
            )
        )
        trainer.train(resume_from_checkpoint=None if self.resume is None else str(self.resume))
        step: int = trainer.state.global_step
        if stopping.stopped:
            raise Preempted(saved=True, step=step)
        return step

    def _evaluate_between(self, model: Any, step: int) -> None:
        """A stop request ends the evaluation; the run itself stops at the end of the step, where it can save."""
        try:
            self._evaluate(model, step=step, saved=True)
        except Preempted:
            log.info("the evaluation at step %d was left unfinished", step)

    def _evaluate(self, model: Any, *, step: int, saved: bool) -> None:
        if self._evaluator is None:
            return
        self._context.progress.update("evaluating", step=step)
        try:
            score = self._evaluator.score(model, step=step)
        except Preempted as stopped:
            raise Preempted(saved=saved, step=step) from stopped
        if gang.rank() == 0:
            self._context.progress.record(step, {EXACT_MATCH: score})
        log.info("held-out exact match at step %d: %.3f", step, score)

    def finish(self, model: Any, *, step: int, metrics: Mapping[str, float | None]) -> RankOutcome:
        """Stages the model in the leading rank and says how this rank ended.

        Metrics that are None are left out. The model is saved as ``export.save`` does.
        """
        parameters = None
        if gang.rank() == 0:
            self._context.progress.update("saving", step=step)
            # Read anew: training leaves its padding and truncation in the tokenizer that it used.
            tokenizer = load_tokenizer(self._context.input_path("model"))
            parameters = export.save(model, tokenizer=tokenizer, folder=self._context.staging)
        gang.barrier()
        return RankOutcome(
            rank=gang.rank(),
            time=time.time(),
            exit_code=ExitCode.DONE,
            metrics={name: value for name, value in metrics.items() if value is not None},
            staged="model",
            parameters=parameters,
            resumed_from=None if self.resume is None else self.resume.name,
        )

    def metrics(self, *, step: int) -> dict[str, float | None]:
        """The figures that every training stage answers with, over all attempts."""
        history = History(self._context.folder)
        return {
            "steps": step,
            LOSS: history.recent_mean(LOSS, count=_RECENT_STEPS),
            FIRST_LOSS: history.first(LOSS),
            EXACT_MATCH_BEFORE: history.of(EXACT_MATCH).get(0),
            EXACT_MATCH: history.of(EXACT_MATCH).get(step) if step else None,
        }


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_bytes())
    return state


def _saved_step(checkpoint: Path) -> int:
    return int(_state(checkpoint)["global_step"])


def _is_finished(checkpoint: Path) -> bool:
    state = _state(checkpoint)
    return int(state["global_step"]) >= int(state["max_steps"])
