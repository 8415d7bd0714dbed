"""A fine-tuning to be disturbed: what it runs, how it is killed, and what must come of it all the same."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posttrain_contract import layout
from posttrain_contract.progress import HistoryLine, read_lines
from posttrain_runtime.files import sha256
from support.processes import children, environment
from support.stages import StageProcess
from support.tiny import finetune_config, run_folder
from support.waiting import wait_for

KIND = "FineTuneJob"
STEPS = 120
INTERVAL = 5
ENDLESS = 1_000_000
LEARNED = {"loss", "gradientNorm", "learningRate", "tokens", "tokenAccuracy", "rewardMargin", "preferenceAccuracy"}
GANG = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2"}


def config(*, steps: int = STEPS, **spec: Any) -> Any:
    """A run with many checkpoints, and without evaluation, which takes time."""
    return finetune_config(
        steps=steps, **{"checkpoints": {"everySteps": INTERVAL, "keep": 3}, "evaluation": None, **spec}
    )


def two_processes(**settings: Any) -> Any:
    """The run by two processes, with the batch of one; start it with ``GANG``."""
    return config(training={"batchSize": 4}, distributed={"processesPerNode": 2}, **settings)


def weights(root: Path) -> str:
    """The digest of the published weights, which are a model's or an adapter's."""
    (path,) = (run_folder(root, KIND) / layout.ARTIFACT).glob("*.safetensors")
    return sha256(path)


def losses(root: Path) -> list[tuple[int, float]]:
    """Every loss that was recorded, all digits of it: of a resumed run also those that it computed a second time."""
    lines = read_lines(run_folder(root, KIND) / layout.METRICS, HistoryLine)
    return [(line.step, line.metrics["loss"]) for line in lines if "loss" in line.metrics]


def learned(root: Path) -> list[tuple[int, str, float]]:
    """Every figure that does not come from the clock."""
    lines = read_lines(run_folder(root, KIND) / layout.METRICS, HistoryLine)
    return [(line.step, name, line.metrics[name]) for line in lines for name in LEARNED & line.metrics.keys()]


def saved(root: Path) -> list[Path]:
    """The checkpoints, newest first."""
    folder = run_folder(root, KIND) / layout.CHECKPOINTS
    return sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was saved at."""
    return int(checkpoint.name.partition("-")[2])


def assert_as_if_undisturbed(root: Path, undisturbed: Path) -> None:
    """Whatever was computed once or twice, it is what the undisturbed run has computed."""
    assert set(learned(root)) == set(learned(undisturbed))
    assert weights(root) == weights(undisturbed)


class Attempt:
    """One attempt that runs."""

    def __init__(self, stage: StageProcess, root: Path) -> None:
        self.stage = stage
        self._root = root
        self._before = len(losses(root))

    def wait_for_step(self, step: int) -> None:
        """Returns once this attempt has made a step with this number or a higher one."""
        wait_for(lambda: any(s >= step for s, _ in losses(self._root)[self._before :]), f"step {step}")

    def wait_for_save(self) -> None:
        """Returns in the middle of a save: there are files of a checkpoint, but no marker yet."""
        self.wait_for_step(1)
        wait_for(self._is_saving, "a checkpoint without marker")

    def _is_saving(self) -> bool:
        return any(not (path / layout.COMPLETE).exists() for path in saved(self._root)[:1])

    @property
    def ranks(self) -> dict[int, int]:
        """The training processes by rank."""
        (first,) = children(self.stage.process.pid)
        gang = {int(environment(process).get("RANK", "-1")): process for process in children(first)}
        return {rank: process for rank, process in gang.items() if rank >= 0} or {0: first}

    def kill(self) -> None:
        """Ends the pod as a failing node does: every process at once, none can say anything."""
        processes = [self.stage.process.pid, *children(self.stage.process.pid), *self.ranks.values()]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.stage.process.wait()
        assert_gone(processes)


def assert_gone(processes: Iterable[int]) -> None:
    """No process is left over."""
    left = list(processes)
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in left), "the processes to end", seconds=20)
