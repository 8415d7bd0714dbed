"""Measures fine-tuning beside what somebody would write by hand: `make bench-finetune`; with --quick in two minutes.

Preparation: the same rows by us, by the tokenizer's own encode_batch, which only tokenizes texts that are rendered
already, and by TRL. Training: the same model, rows and arguments by the stage program and by a script that calls TRL.
Each is a process of its own; by turns, and of several turns the best counts, because other work on the machine only
ever adds time.

The model has random weights and the rows are GSM8K's where ../shared/data has them, else sums in words. Where there is
a GPU, a model of the size of 8B is measured on it, see benchmarks/finetune/gpu.py.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.finetune.child import ask
from benchmarks.finetune.gpu import on_gpu
from benchmarks.finetune.inputs import make_model, make_rows
from benchmarks.finetune.stage import Case, run_stage
from benchmarks.table import Baseline, Row, report

TURNS: Final = 3


def main() -> int:
    """Measures everything; the exit status is 1 when a target does not hold."""
    parser = argparse.ArgumentParser(description="Measures fine-tuning.")
    parser.add_argument("--quick", action="store_true", help="fewer rows, steps and turns")
    quick = parser.parse_args().quick
    turns, steps, rows = (1, 40, 7_500) if quick else (TURNS, 120, 60_000)
    with tempfile.TemporaryDirectory(prefix="posttrain-bench-") as name:
        folder = Path(name)
        count = make_rows(folder / "rows.jsonl", rows)
        make_model(folder / "model", folder / "rows.jsonl")
        found = [*preparation(folder, count, turns), *training(folder, steps, turns)]
    found += on_gpu()
    return report("finetune", found, count=count, steps=steps, turns=turns)


def preparation(folder: Path, rows: int, turns: int) -> list[Row]:
    """Seconds for all rows, and our memory."""
    seconds: dict[str, list[float]] = {}
    memory = 0.0
    for _ in range(turns):
        for how in ("ours", "packed", "encode_batch", "trl"):
            answer = ask("prepare", how, str(folder))
            seconds.setdefault(how, []).append(answer["seconds"])
            memory = max(memory, answer["peak_mb"] if how in ("ours", "packed") else 0)
    best = {how: min(times) for how, times in seconds.items()}
    tokenizer = Baseline(best["encode_batch"], "encode_batch")
    return [
        Row(f"prepare {rows} rows", best["ours"], "s", tokenizer, ratio_at_most=1 / 0.9),
        Row(f"prepare {rows} rows", best["ours"], "s", Baseline(best["trl"], "TRL"), ratio_at_most=0.5),
        Row(f"prepare and pack {rows} rows", best["packed"], "s", tokenizer),
        Row("memory of the preparation", memory, "MB", at_most=1000),
    ]


def training(folder: Path, steps: int, turns: int) -> list[Row]:
    """Seconds of a step, and to the first one."""
    ours, theirs = [], []
    case = Case(samples=Case.batch * steps)
    for turn in range(turns):
        ours.append(run_stage(case, folder, folder / f"run-{turn}", steps=steps))
        theirs.append(ask("by_hand", json.dumps(asdict(case)), str(folder), str(steps), str(folder / f"hand-{turn}")))
    step, step_by_hand = (min(turn["step"] for turn in found) for found in (ours, theirs))
    first, first_by_hand = (min(turn["first"] for turn in found) for found in (ours, theirs))
    return [
        Row("a training step", 1000 * step, "ms", Baseline(1000 * step_by_hand, "TRL by hand"), ratio_at_most=1.02),
        Row("start to the first step", first, "s", Baseline(first_by_hand, "TRL by hand")),
        Row("start to the first step, more than by hand", first - first_by_hand, "s", at_most=3),
    ]


if __name__ == "__main__":
    sys.exit(main())
