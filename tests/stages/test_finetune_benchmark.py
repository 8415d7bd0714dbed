"""The benchmark that wants a GPU (benchmarks/finetune/gpu.py): all of it runs without one, but for the GPU."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from posttrain_contract.progress import HistoryLine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.finetune import gpu

    return gpu


@pytest.mark.timeout(300)
def test_a_dry_run_has_a_figure_for_every_row() -> None:
    command = [sys.executable, "-m", "benchmarks.finetune.gpu", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    table = [re.split(r" {2,}", line) for line in done.stdout.splitlines() if line.startswith("dry run")]
    figures = {name: float(ours.split()[0]) for name, ours, *_ in table}
    assert figures.keys() == {
        "dry run LoRA r16",
        "dry run LoRA r16, a step",
        "dry run LoRA r16, start to the first step, more than by hand",
        "dry run all weights, 8-bit Adam",
    }
    assert all(math.isfinite(figure) for figure in figures.values())


def test_the_speed_is_held_to_its_floor_and_shown_with_mfu(gpu: ModuleType) -> None:
    """The last row cannot come of a dry run: the peak of a CPU is not known."""
    slow_start = [HistoryLine(step=step, metrics={"tokensPerSecond": 1.0, "mfu": 0.0}) for step in range(gpu.WARM_UP)]
    then = [HistoryLine(step=gpu.WARM_UP + step, metrics={"tokensPerSecond": 7999.0, "mfu": 0.4}) for step in range(3)]
    speed, mfu = gpu.throughput("8B LoRA r16", [*slow_start, *then], floor=gpu.FLOORS["LoRA r16"])
    assert (speed.ours, speed.target, speed.holds) == (7999.0, ">= 8000", False)
    assert (mfu.figure, mfu.ours, mfu.holds) == ("8B LoRA r16, MFU", 40.0, None)


def test_what_is_measured_is_as_large_as_the_floors_say(gpu: ModuleType) -> None:
    assert gpu.SIZE.shape.parameters == 8_590_200_832
    assert gpu.SIZE.case.max_length == 4096
    lora, full = gpu.SIZE.cases.values()
    assert (lora.lora_rank, full.lora_rank, full.optimizer) == (16, None, "adamw_bnb_8bit")
    assert all(case.packing and case.precision == "bf16" and case.gpus == 1 for case in (lora, full))
