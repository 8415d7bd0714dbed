"""Copies of the figures in W&B and TensorBoard: one run over all attempts, and no harm when a tracker fails."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.result import StageResult
from posttrain_contract.tracking import Tracking
from posttrain_training import tracking
from posttrain_training.tracking import Tracker
from support import wandb_files
from support.stages import run_stage_process, start_stage_process
from support.tiny import context_in_process, finetune_config, history, mount, run_folder, steps_done
from support.waiting import wait_for

KIND = "FineTuneJob"
KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB = {"project": "tests", "entity": "acme", "group": "sweep", "tags": ["tiny", "sft"], "mode": "offline"}

pytestmark = pytest.mark.timeout(300)  # a start takes seconds of two cores, and one test starts twice


def config(attempt: int = 1, **wandb: Any) -> Any:
    tasks = {"uri": "pvc://posttrain/any", "columns": {"prompt": "problem", "answer": "answer"}}
    return finetune_config(
        steps=24,
        attempt=attempt,
        checkpoints={"everySteps": 4},
        evaluation={"everySteps": 4, "generate": {"dataset": tasks, "maxNewTokens": 16}},
        tracking={"wandb": {**WANDB, **wandb}, "tensorboard": True},
    )


@pytest.fixture(scope="module")
def resumed(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """A tracked run that was killed once, and had no time to save then."""
    root = mount(tmp_path_factory.mktemp("tracking"), tiny_inputs)
    stage = start_stage_process(config(), root, env={"WANDB_API_KEY": KEY})
    wait_for(lambda: steps_done(root, KIND) >= 10, "10 steps")
    (rank,) = [int(pid) for pid in _children(stage.process.pid)]
    os.kill(rank, signal.SIGKILL)
    stage.wait()
    return root, run_stage_process(config(attempt=2), root)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()


def logs(root: Path) -> Path:
    return run_folder(root, KIND) / layout.LOGS


def test_two_attempts_are_one_run(resumed: tuple[Path, StageResult]) -> None:
    root, result = resumed
    assert result.outcome == "Succeeded"
    assert "trackingLost" not in result.metrics
    first, second = wandb_files.runs(logs(root))
    for path in (first, second):
        run = next(record.run for record in wandb_files.records(path) if record.WhichOneof("record_type") == "run")
        assert (run.run_id, run.entity, run.project, run.run_group) == ("test-0", "acme", "tests", "sweep")
        assert (run.display_name, list(run.tags)) == ("test", ["tiny", "sft"])
        axes = [record.metric for record in wandb_files.records(path) if record.WhichOneof("record_type") == "metric"]
        assert any(metric.glob_name == "*" and metric.step_metric == "step" for metric in axes)


def test_steps_that_were_repeated_are_in_both_attempts(resumed: tuple[Path, StageResult]) -> None:
    root, result = resumed
    assert result.resumed_from is not None
    saved = int(result.resumed_from.partition("-")[2])
    first, second = (
        [line["step"] for line in wandb_files.history(path) if "loss" in line] for path in wandb_files.runs(logs(root))
    )
    assert first == list(range(1, len(first) + 1))
    assert len(first) >= saved
    assert second == list(range(saved + 1, 25))
    ours = history(root, KIND)
    lines = wandb_files.history(wandb_files.runs(logs(root))[1])
    assert {line["step"]: line["loss"] for line in lines if "loss" in line} == {
        step: ours[step]["loss"] for step in range(saved + 1, 25)
    }


def test_every_evaluation_has_a_table_of_its_own(resumed: tuple[Path, StageResult]) -> None:
    root, _ = resumed
    first, second = (wandb_files.tables(path) for path in wandb_files.runs(logs(root)))
    assert {"samples/step-0", "samples/step-4", "samples/step-8"} <= first.keys()
    assert {"samples/step-20", "samples/step-24"} <= second.keys()
    for name, rows in (first | second).items():
        assert len(rows) == 16
        assert {f"samples/step-{row[0]}" for row in rows} == {name}
    before, after = ([row[2] for row in tables] for tables in (first["samples/step-0"], second["samples/step-24"]))
    assert before != after


def test_tensorboard_reads_the_curves(resumed: tuple[Path, StageResult]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root, _ = resumed
    ours = history(root, KIND)
    events = EventAccumulator(str(run_folder(root, KIND) / layout.TENSORBOARD), {"tensors": 0}).Reload()
    losses = {event.step: float(event.tensor_proto.float_val[0]) for event in events.Tensors("loss")}
    assert losses == {step: pytest.approx(ours[step]["loss"], rel=1e-6) for step in range(1, 25)}
    assert [event.step for event in events.Tensors("exactMatch")][-1] == 24


def test_the_key_is_written_nowhere(resumed: tuple[Path, StageResult]) -> None:
    root, _ = resumed
    for path in [*run_folder(root, KIND).rglob("*"), root / "log.txt"]:
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_without_a_key_the_run_is_written_offline_and_the_loss_is_told(tiny_inputs: Path, tmp_path: Path) -> None:
    root = mount(tmp_path / "keyless", tiny_inputs)
    stage = start_stage_process(config(mode="online"), root, env={"WANDB_API_KEY": ""})
    result = stage.wait()
    assert result.outcome == "Succeeded"
    assert result.metrics["trackingLost"] >= 1
    assert "run.secrets.wandb is not set" in stage.log
    (run,) = wandb_files.runs(logs(root))
    assert "samples/step-24" in wandb_files.tables(run)


@pytest.fixture
def black_hole(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of W&B that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield


@pytest.mark.usefixtures("black_hole")
def test_a_server_that_never_answers_costs_the_training_nothing_and_the_end_a_bounded_time(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "LAST_SECONDS", 5.0)
    monkeypatch.setattr(tracking, "_WAITING_LINES", 100)
    wanted = Tracking.parse({"wandb": {"project": "tests"}})
    tracker = Tracker(wanted, context_in_process(config(), mount(tmp_path / "hole", tiny_inputs)))
    started = time.monotonic()
    for step in range(20_000):
        tracker.figures(step, {"loss": 1.0})
    assert time.monotonic() - started < 5
    tracker.close(succeeded=True)
    assert time.monotonic() - started < 30
    assert tracker.lost > 0
    assert "was cut off" in caplog.text
    assert tracker._process is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(tracker._process.pid, 0)
    assert tracker._process.stdin is not None
    assert tracker._process.stdin.closed
    assert not tracker._thread.is_alive()
