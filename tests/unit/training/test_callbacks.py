"""Around the optimizer steps: figures that are no numbers, stop requests, space for checkpoints."""

import json
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.progress import ProgressReporter
from posttrain_training import gang
from posttrain_training.callbacks import Checkpointing, Stopping, Telling

FIGURES = {"loss": "loss", "grad_norm": "gradientNorm"}


def telling(folder: Path) -> Telling:
    progress = ProgressReporter(folder / "progress.json", history=folder / "metrics.jsonl")
    return Telling(progress, FIGURES, dict)


def state(step: int = 3, total: int = 10) -> Any:
    return SimpleNamespace(global_step=step, max_steps=total, log_history=[])


@pytest.mark.parametrize("figures", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_a_figure_that_is_no_number_ends_the_run_as_diverged(tmp_path: Path, figures: dict[str, float]) -> None:
    with pytest.raises(StageError) as caught:
        telling(tmp_path).on_log(None, state(), None, logs=figures)
    assert caught.value.code is ExitCode.DIVERGED
    assert "step 3" in caught.value.message
    assert not (tmp_path / "metrics.jsonl").exists()


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
    callback = Checkpointing(tmp_path, keep=1, config_digest="0", expected_bytes=100)
    callback.on_step_end(None, state(), SimpleNamespace(should_save=False))
    with pytest.raises(StageError) as caught:
        callback.on_step_end(None, state(), SimpleNamespace(should_save=True))
    assert caught.value.code is ExitCode.STORAGE
