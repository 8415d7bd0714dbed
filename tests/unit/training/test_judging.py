"""Evaluations that a stop request cut short: the run goes on, and the next attempt makes up for them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.metrics import EXACT_MATCH
from posttrain_runtime.errors import Preempted
from posttrain_runtime.progress import ProgressReporter
from posttrain_training.best import Best
from posttrain_training.callbacks import Evaluating
from posttrain_training.history import History
from posttrain_training.judging import Judge


class Scorer:
    """Scores a step by its number, until it is asked to stop."""

    def __init__(self) -> None:
        self.stopped = False

    def score(self, model: Any, *, step: int) -> float:
        if self.stopped:
            raise Preempted(saved=False)
        return step / 100


@pytest.fixture
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture
def judge(tmp_path: Path, scorer: Scorer) -> Judge:
    progress = ProgressReporter(tmp_path / "progress.json", history=tmp_path / layout.METRICS)
    best = Best(EXACT_MATCH, folder=tmp_path / "checkpoints", history=History(tmp_path), resumed_at=0)
    return Judge({EXACT_MATCH: scorer}, best=best, progress=progress)


def evaluated(tmp_path: Path) -> list[int]:
    lines = (tmp_path / layout.METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_step_that_was_not_evaluated_to_the_end_is_owed(tmp_path: Path, judge: Judge, scorer: Scorer) -> None:
    assert judge.evaluate_between(None, 4)
    scorer.stopped = True
    assert not judge.evaluate_between(None, 8)
    assert evaluated(tmp_path) == [4]
    owed = {step: judge.owes(step, every_steps=4, history=History(tmp_path)) for step in (0, 4, 6, 8)}
    assert owed == {0: False, 4: False, 6: False, 8: True}
    with pytest.raises(Preempted) as stopped:
        judge.evaluate(None, step=8, saved=True)
    assert (stopped.value.saved, stopped.value.step) == (True, 8)


@pytest.mark.parametrize("owed", [True, False])
def test_what_is_owed_is_evaluated_before_the_first_step(*, owed: bool) -> None:
    seen: list[int] = []

    def evaluate(step: int) -> bool:
        seen.append(step)
        return step == 12

    callback = Evaluating(evaluate, every_steps=4, owed=owed)
    saves = {}
    callback.on_train_begin(None, SimpleNamespace(global_step=8, max_steps=16), None)
    for step in range(9, 17):
        control = SimpleNamespace(should_save=False)
        callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=16), control)
        saves[step] = control.should_save
    assert seen == ([8, 12] if owed else [12]), "the last step is left to the evaluation after training"
    assert [step for step, save in saves.items() if save] == [12], "the best step is saved"


def test_without_a_scorer_nothing_is_evaluated(tmp_path: Path) -> None:
    progress = ProgressReporter(tmp_path / "progress.json", history=tmp_path / layout.METRICS)
    assert not Judge({}, best=None, progress=progress).evaluate(None, step=0, saved=False)
    assert not (tmp_path / "progress.json").exists()
