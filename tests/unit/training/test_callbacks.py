"""Around the optimizer steps: figures that are no numbers, stop requests, space for checkpoints."""

import json
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.progress import ProgressReporter
from posttrain_training import gang
from posttrain_training.callbacks import Checkpointing, Stopping, Telling
from posttrain_training.divergence import Divergence

FIGURES = {"loss": "loss", "grad_norm": "gradientNorm"}
MODEL = torch.nn.Linear(1, 1)
SAVE = SimpleNamespace(should_save=True)


def checkpointing(folder: Path) -> Checkpointing:
    """What saves small checkpoints into a folder."""
    return Checkpointing(
        folder,
        keep=1,
        config_digest="0",
        expected_bytes=100,
        divergence=Divergence(folder),
        saving=folder / "saving-0",
    )


def telling(folder: Path) -> Telling:
    progress = ProgressReporter(folder / "progress.json", history=folder / "metrics.jsonl")
    return Telling(progress, FIGURES, dict, divergence=Divergence(folder))


def diverges(folder: Path, figures: dict[str, float], *, step: int) -> StageError:
    """How an attempt ends that meets these figures."""
    with pytest.raises(StageError) as caught:
        telling(folder).on_log(None, state(step), None, logs=figures)
    return caught.value


def state(step: int = 3, total: int = 10) -> Any:
    return SimpleNamespace(global_step=step, max_steps=total, log_history=[])


@pytest.mark.parametrize("figures", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_a_figure_that_is_no_number_ends_the_attempt_and_is_not_recorded(
    tmp_path: Path, figures: dict[str, float]
) -> None:
    failure = diverges(tmp_path, figures, step=3)
    assert (failure.code, failure.reason) == (ExitCode.NOT_FINITE, "NotFinite")
    assert failure.code.retriable
    assert "at step 3" in failure.message
    assert not (tmp_path / "metrics.jsonl").exists()


def test_only_the_second_time_at_the_same_step_is_for_good(tmp_path: Path) -> None:
    nan = {"loss": float("nan")}
    steps = [5, 9, 7]
    assert [diverges(tmp_path, nan, step=step).code for step in steps] == [ExitCode.NOT_FINITE] * 3
    for step in steps:
        failure = diverges(tmp_path, nan, step=step)
        assert (failure.code, failure.reason) == (ExitCode.DIVERGED, "Diverged")
        assert not failure.code.retriable
        assert f"loss is nan at step {step}, for the second time; lower training.learningRate" in failure.message


def test_ranks_judge_alike_although_one_of_them_has_told_already(tmp_path: Path) -> None:
    ranks = [Divergence(tmp_path) for _ in range(2)]
    assert [rank.error("loss is nan", step=3).code for rank in ranks] == [ExitCode.NOT_FINITE] * 2
    assert Divergence(tmp_path).error("loss is nan", step=3).code is ExitCode.DIVERGED


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / layout.DIVERGENCE).write_text('{"steps": [3', encoding="utf-8")
    assert Divergence(tmp_path).error("loss is nan", step=3).code is ExitCode.NOT_FINITE
    assert Divergence(tmp_path).error("loss is nan", step=3).code is ExitCode.DIVERGED


def test_figures_are_recorded_under_our_names_and_nothing_else_is(tmp_path: Path) -> None:
    telling(tmp_path).on_log(None, state(), None, logs={"loss": 1.5, "grad_norm": 2.0, "epoch": 0.1})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8"))
    assert (line["step"], line["metrics"]) == (3, {"loss": 1.5, "gradientNorm": 2.0})


def test_the_figures_do_not_pile_up_in_the_checkpoints(tmp_path: Path) -> None:
    present = state()
    present.log_history.append({"loss": 1.5})
    telling(tmp_path).on_log(None, present, None, logs={"loss": 1.5})
    assert present.log_history == []


@pytest.mark.parametrize(("asked", "step", "stops"), [(True, 3, True), (False, 3, False), (True, 10, False)])
def test_a_stop_request_saves_and_leaves_unless_it_was_the_last_step(*, asked: bool, step: int, stops: bool) -> None:
    event = threading.Event()
    if asked:
        event.set()
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    callback = Stopping(gang.Stop(event, device=torch.device("cpu")))
    callback.on_step_end(None, state(step), control)
    assert (control.should_save, control.should_training_stop, callback.stopped) == (stops, stops, stops)


def test_a_checkpoint_that_would_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100, 90, 10))
    callback = checkpointing(tmp_path)
    callback.on_step_end(None, state(), SimpleNamespace(should_save=False), model=MODEL)
    with pytest.raises(StageError) as caught:
        callback.on_step_end(None, state(), SAVE, model=MODEL)
    assert caught.value.code is ExitCode.STORAGE


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, value: float) -> None:
    model = torch.nn.Linear(4, 4)
    checkpointing(tmp_path).on_step_end(None, state(), SAVE, model=model)
    with torch.no_grad():
        model.weight[1, 2] = value
    with pytest.raises(StageError, match="the weights are no finite numbers at step 3") as caught:
        checkpointing(tmp_path).on_step_end(None, state(), SAVE, model=model)
    assert caught.value.code is ExitCode.NOT_FINITE


def test_a_share_of_split_weights_that_is_no_number_is_seen(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data = torch.empty(0)
    model.weight.ds_tensor = torch.ones(4)  # as ZeRO-3 keeps a process's share
    checkpointing(tmp_path).on_step_end(None, state(), SAVE, model=model)
    model.weight.ds_tensor[2] = float("nan")
    with pytest.raises(StageError, match="the weights are no finite numbers"):
        checkpointing(tmp_path).on_step_end(None, state(), SAVE, model=model)


def test_who_watches_for_hangs_knows_when_a_checkpoint_is_being_saved(tmp_path: Path) -> None:
    callback = checkpointing(tmp_path)
    callback.on_step_end(None, state(), SimpleNamespace(should_save=False), model=MODEL)
    assert not (tmp_path / "saving-0").exists()
    callback.on_step_end(None, state(), SAVE, model=MODEL)
    assert (tmp_path / "saving-0").exists()
    (tmp_path / "checkpoint-3").mkdir()
    callback.on_save(None, state(), SAVE)
    assert not (tmp_path / "saving-0").exists()
    assert (tmp_path / "checkpoint-3" / layout.COMPLETE).is_file()
