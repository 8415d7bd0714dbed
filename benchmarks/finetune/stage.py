"""The stage program on the benchmark's model and rows."""

import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

from posttrain_contract import layout
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.progress import HistoryLine, read_lines
from posttrain_contract.stage import FineTuneStage, ResolvedInput
from support.stages import run_facts, run_stage_process

MAX_LENGTH: Final = 1024
BATCH: Final = 4
TRAINING: Final = {
    "batchSize": BATCH,
    "learningRate": 1e-4,
    "precision": "fp32",
    "maxLength": MAX_LENGTH,
    "scheduler": "constant",
}
WARM_UP: Final = 10
"""Steps that do not count."""


def run_stage(inputs: Path, root: Path, *, steps: int) -> dict[str, float]:
    """The seconds of a step and from the start to the first one."""
    root.mkdir()
    (root / "inputs").symlink_to(inputs)
    document = {
        "model": {"uri": "pvc://bench/model"},
        "dataset": {"uri": "pvc://bench/rows.jsonl", "format": "question-answer", "samples": BATCH * steps},
        "training": {**TRAINING, "maxSteps": steps},
        "checkpoints": {"everySteps": 10_000_000},
    }
    paths = {"model": "inputs/model", "dataset": "inputs/rows.jsonl"}
    resolved = {name: ResolvedInput(uri=f"pvc://bench/{path}", path=path) for name, path in paths.items()}
    config = FineTuneStage(run=run_facts("FineTuneJob", inputs=resolved), spec=FineTuneSpec.parse(document))
    began = time.time()
    result = run_stage_process(config, root)
    if result.outcome != "Succeeded":
        sys.exit(f"the stage failed: {result.message}")
    lines = read_lines(root / config.run.folder / layout.METRICS, HistoryLine)
    return figures([line.time for line in lines if "loss" in line.metrics and line.time is not None], began)


def figures(times: list[float], began: float) -> dict[str, float]:
    """From the moments at which steps ended: the median between two, and that of the first."""
    steps = [later - earlier for earlier, later in pairwise(times[WARM_UP:])]
    return {"step": statistics.median(steps), "first": times[0] - began}
