"""The stage program on the benchmark's model and rows."""

import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from posttrain_contract import layout
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.progress import HistoryLine, read_lines
from posttrain_contract.stage import FineTuneStage, ResolvedInput
from support.stages import run_facts, run_stage_process

MAX_LENGTH: Final = 1024
LEARNING_RATE: Final = 1e-5
WARM_UP: Final = 10
"""Steps that do not count."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how: the same by the stage program and by hand."""

    samples: int | None = None
    """Rows that are read; None: all."""
    batch: int = 4
    max_length: int = MAX_LENGTH
    packing: bool = False
    precision: str = "fp32"
    attention: str = "sdpa"
    optimizer: str = "adamw_torch_fused"
    lora_rank: int | None = None
    """None: all weights are trained."""
    gpus: int = 0

    def config(self, *, steps: int) -> FineTuneStage:
        """The stage's configuration, for inputs below ``inputs``; only the last step is saved."""
        rank = self.lora_rank
        document: dict[str, Any] = {
            "model": {"uri": "pvc://bench/model"},
            "dataset": {"uri": "pvc://bench/rows.jsonl", "format": "question-answer", "samples": self.samples},
            "adapter": None if rank is None else {"lora": {"rank": rank, "alpha": 2 * rank}},
            "training": {
                "maxSteps": steps,
                "batchSize": self.batch,
                "maxLength": self.max_length,
                "packing": self.packing,
                "precision": self.precision,
                "attention": self.attention,
                "optimizer": self.optimizer,
                "learningRate": LEARNING_RATE,
                "scheduler": "constant",
            },
            "checkpoints": {"everySteps": 10_000_000},
        }
        paths = {"model": "inputs/model", "dataset": "inputs/rows.jsonl"}
        resolved = {name: ResolvedInput(uri=f"pvc://bench/{path}", path=path) for name, path in paths.items()}
        facts = run_facts("FineTuneJob", inputs=resolved).model_copy(update={"gpus": self.gpus})
        return FineTuneStage(run=facts, spec=FineTuneSpec.parse(document))


def run_stage(case: Case, inputs: Path, root: Path, *, steps: int) -> dict[str, float]:
    """The seconds of a step and from the start to the first one."""
    root.mkdir()
    (root / "inputs").symlink_to(inputs)
    config = case.config(steps=steps)
    began = time.time()
    result = run_stage_process(config, root)
    if result.outcome != "Succeeded":
        sys.exit(f"the stage failed: {result.message}")
    return figures(moments(steps_of(root, config)), began)


def steps_of(root: Path, config: FineTuneStage) -> list[HistoryLine]:
    """The steps that a run has made so far."""
    lines = read_lines(root / config.run.folder / layout.METRICS, HistoryLine)
    return [line for line in lines if "loss" in line.metrics]


def moments(steps: Iterable[HistoryLine]) -> list[float]:
    """When they ended."""
    return [line.time for line in steps if line.time is not None]


def figures(times: list[float], began: float) -> dict[str, float]:
    """From the moments at which steps ended: the median between two, and that of the first."""
    steps = [later - earlier for earlier, later in pairwise(times[WARM_UP:])]
    return {"step": statistics.median(steps), "first": times[0] - began}
