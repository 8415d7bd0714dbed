"""One training run from its newest checkpoint to its last step, the same for every trainer."""

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from posttrain_contract import layout
from posttrain_contract.evaluation import EVALUATION_INPUT
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.metrics import (
    CHECKPOINTS_SKIPPED,
    EXACT_MATCH,
    EXACT_MATCH_BEFORE,
    FIRST_LOSS,
    GRADIENT_NORM,
    LEARNING_RATE,
    LOSS,
    PERPLEXITY,
)
from posttrain_contract.progress import TRAINING
from posttrain_contract.stage import FineTuneStage, RLStage
from posttrain_runtime import stalls
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import Preempted
from posttrain_runtime.ranks import RankOutcome
from transformers import PrinterCallback

from posttrain_training import export, gang, resuming
from posttrain_training.best import Best
from posttrain_training.callbacks import (
    Beginning,
    Checkpointing,
    Evaluating,
    NothingLeftError,
    Stopping,
    Telling,
)
from posttrain_training.card import Description, write_card
from posttrain_training.divergence import Divergence
from posttrain_training.evaluation import Evaluator
from posttrain_training.history import History
from posttrain_training.judging import Judge, Scorer
from posttrain_training.measures import CHECKPOINT_SECONDS, Measures, compute_of, overall
from posttrain_training.models import count_trained
from posttrain_training.perplexity import PerplexityEvaluator, Row
from posttrain_training.tokenizers import load_tokenizer
from posttrain_training.tracking import Tracker

log = logging.getLogger(__name__)

FIGURES: Mapping[str, str] = {"loss": LOSS, "grad_norm": GRADIENT_NORM, "learning_rate": LEARNING_RATE}
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
        self,
        context: StageContext[FineTuneStage] | StageContext[RLStage],
        *,
        device: Any,
        tokenizer: Any,
        validation: Sequence[Row] | None = None,
    ) -> None:
        """``validation`` has the rows of tokens whose perplexity is asked for."""
        self._context = context
        self._spec = context.config.spec
        self._tokenizer = tokenizer
        self._folder = context.folder / layout.CHECKPOINTS
        self.stop = gang.Stop(context.stop, device=device)
        found = resuming.choose(self._folder, config_digest=context.digest)
        self.resume, self._skipped = found.path, found.skipped
        self._divergence = Divergence(context.folder)
        self._tell_resume()
        self._evaluator: Evaluator | None = None
        self._judge = self._make_judge(validation)
        self._tracker = self._make_tracker()

    def _tell_resume(self) -> None:
        if self.resume is not None:
            log.info("going on from %s", self.resume.name)
        if self._skipped and gang.rank() == 0:
            # Of two lines for one step the later one holds, and several attempts may begin at the same step.
            before = History(self._context.folder).of(CHECKPOINTS_SKIPPED).get(self._resumed_at, 0)
            self._context.progress.record(self._resumed_at, {CHECKPOINTS_SKIPPED: before + len(self._skipped)})

    def _make_judge(self, validation: Sequence[Row] | None) -> Judge:
        wanted = self._spec.evaluation
        if wanted is None:
            return Judge({}, best=None, progress=self._context.progress)
        scorers: dict[str, Scorer] = {}
        if wanted.generate is not None:
            scorers[EXACT_MATCH] = self._evaluator = Evaluator(
                wanted.generate,
                path=self._context.input_path(EVALUATION_INPUT),
                tokenizer=self._tokenizer,
                run_folder=self._context.folder,
                stop=self.stop,
                progress=self._context.progress,
            )
        if wanted.perplexity:
            scorers[PERPLEXITY] = PerplexityEvaluator(
                validation or (),
                batch_size=self._spec.training.batch_size,
                padding=self._tokenizer.pad_token_id,
                stop=self.stop,
                progress=self._context.progress,
            )
        return Judge(scorers, best=self._best(wanted.keep_best), progress=self._context.progress)

    def _best(self, figure: str | None) -> Best | None:
        if figure is None:
            return None
        return Best(figure, folder=self._folder, history=History(self._context.folder), resumed_at=self._resumed_at)

    @property
    def _resumed_at(self) -> int:
        return 0 if self.resume is None else _saved_step(self.resume)

    def _make_tracker(self) -> Tracker | None:
        if self._spec.tracking is None or gang.rank() != 0:
            return None
        tracker = Tracker(self._spec.tracking, self._context)
        self._context.progress.listeners.append(tracker.figures)
        if self._evaluator is not None:
            self._evaluator.listeners.append(tracker.samples)
        return tracker

    def run(self, trainer: Any, *, figures: Mapping[str, str], extra: Callable[[], Mapping[str, float]] = dict) -> int:
        """Trains to the last step and returns its number.

        ``figures`` maps names that this trainer logs beside ``FIGURES`` to names of our history; ``extra`` gives
        further figures of the present step. Raises ``Preempted`` when the run was asked to stop.
        """
        succeeded = False
        try:
            step = self._run(trainer, figures=figures, extra=extra)
            succeeded = True
        finally:
            if self._tracker is not None:
                self._tracker.close(succeeded=succeeded)
        return step

    def _run(self, trainer: Any, *, figures: Mapping[str, str], extra: Callable[[], Mapping[str, float]]) -> int:
        loading = resuming.Loading(self.resume)
        trainer.add_callback(loading)
        with loading.guarded():
            step = self._train(trainer, figures={**FIGURES, **figures}, extra=extra)
        self._judge.evaluate(trainer.model, step=step, saved=True)
        if (best := self._judge.best) is not None and best.step not in (0, step):
            log.info("step %d was the best: its weights are published", best.step)
            _load_back(trainer, self._folder / f"checkpoint-{best.step}")
        # In every rank: those that have nothing to save wait for the one that has.
        self._context.progress.update("saving", step=step)
        return step

    def _train(self, trainer: Any, *, figures: Mapping[str, str], extra: Callable[[], Mapping[str, float]]) -> int:
        stopping = Stopping(self.stop)
        history = History(self._context.folder)
        measures = Measures(
            history, resumed_at=self._resumed_at, compute=compute_of(trainer.model, trainer.args.device)
        )
        trainer.add_callback(measures)
        trainer.remove_callback(PrinterCallback)
        # TRL would write a model card among the checkpoints, with each of them.
        trainer.create_model_card = lambda **_: None
        self._judge.timed = measures.evaluating
        if self._spec.evaluation is not None and (every := self._spec.evaluation.every_steps) is not None:
            owed = self._judge.owes(self._resumed_at, every_steps=every, history=history)
            trainer.add_callback(
                Evaluating(lambda step: self._judge.evaluate_between(trainer.model, step), every_steps=every, owed=owed)
            )
        trainer.add_callback(stopping)
        trainer.add_callback(
            Telling(
                self._context.progress,
                figures,
                lambda: {**measures.figures, **extra()},
                divergence=self._divergence,
            )
        )
        trainer.add_callback(
            Checkpointing(
                self._folder,
                keep=self._spec.checkpoints.keep,
                config_digest=self._context.digest,
                expected_bytes=count_trained(trainer.model) * _BYTES_PER_PARAMETER,
                protect=self._protected,
                divergence=self._divergence,
                saving=stalls.saving_file(self._context.scratch, gang.rank()),
            )
        )
        trainer.add_callback(measures.closing)
        trainer.add_callback(Beginning(None if self.resume else lambda: self._evaluate_first(trainer.model)))
        with suppress(NothingLeftError):
            trainer.train(resume_from_checkpoint=None if self.resume is None else str(self.resume))
        step: int = trainer.state.global_step
        if gang.rank() == 0 and measures.checkpoint_seconds is not None:
            self._context.progress.record(step, {CHECKPOINT_SECONDS: measures.checkpoint_seconds})
        if stopping.stopped:
            raise Preempted(saved=True, step=step)
        return step

    def _evaluate_first(self, model: Any) -> None:
        self._judge.evaluate(model, step=0, saved=False)
        self._context.progress.update(TRAINING)

    def _protected(self) -> Collection[int]:
        return self._judge.best.protected() if self._judge.best else ()

    def finish(
        self,
        model: Any,
        *,
        step: int,
        metrics: Mapping[str, float | None],
        description: Description,
        weights: Mapping[str, Any] | None = None,
    ) -> RankOutcome:
        """Stages the model in the leading rank and says how this rank ended.

        Metrics that are None are left out. The model is saved as ``export.save`` does, with a card.
        """
        parameters = None
        if gang.rank() == 0:
            # Read anew: training leaves its padding and truncation in the tokenizer that it used.
            template = self._tokenizer.chat_template
            tokenizer = load_tokenizer(self._context.input_path("model"), template=template, plain=True)
            parameters = export.save(model, tokenizer=tokenizer, folder=self._context.staging, weights=weights)
            write_card(self._context, description, step=step, figures=metrics)
        gang.barrier()
        return RankOutcome(
            rank=gang.rank(),
            time=time.time(),
            exit_code=ExitCode.DONE,
            metrics={name: value for name, value in metrics.items() if value is not None},
            staged="model",
            parameters=parameters,
            resumed_from=None if self.resume is None else self.resume.name,
            message="; ".join(self._skipped),
        )

    def metrics(self, *, step: int) -> dict[str, float | None]:
        """The figures that every training stage answers with, over all attempts."""
        history = History(self._context.folder)
        best = self._judge.best
        published = (best.step if best else 0) or step
        return {
            "steps": step,
            "bestStep": float(best.step) if best else None,
            LOSS: history.recent_mean(LOSS, count=_RECENT_STEPS),
            FIRST_LOSS: history.first(LOSS),
            LEARNING_RATE: history.last(LEARNING_RATE),
            GRADIENT_NORM: history.recent_mean(GRADIENT_NORM, count=_RECENT_STEPS),
            CHECKPOINTS_SKIPPED: sum(history.of(CHECKPOINTS_SKIPPED).values()) or None,
            EXACT_MATCH_BEFORE: history.of(EXACT_MATCH).get(0),
            EXACT_MATCH: history.of(EXACT_MATCH).get(published) if published else None,
            "perplexityBefore": history.of(PERPLEXITY).get(0),
            PERPLEXITY: history.of(PERPLEXITY).get(published) if published else None,
            **overall(history),
            "trackingLost": float(self._tracker.lost) if self._tracker and self._tracker.lost else None,
        }


def _load(trainer: Any, checkpoint: Path) -> None:
    """Gives the model the weights of a checkpoint."""
    trainer._load_from_checkpoint(str(checkpoint))  # noqa: SLF001 - there is no public way


def _load_back(trainer: Any, checkpoint: Path) -> None:
    """The same after training, when the weights may be split among the ranks."""
    if trainer.model_wrapped is trainer.model or not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        _load(trainer, checkpoint)
        return
    trainer.state.best_model_checkpoint = str(checkpoint)
    trainer._load_best_model()  # noqa: SLF001 - there is no public way


def _saved_step(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "trainer_state.json").read_bytes())["global_step"])
