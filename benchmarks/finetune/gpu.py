"""An 8B-shaped model on one GPU: tokens a second and MFU, and what the runtime costs beside TRL called by hand.

`make bench-finetune` runs it where there is a GPU. Alone: `python -m benchmarks.finetune.gpu`; with --dry-run the same
with a tiny model on the CPU, which shows that it works and nothing else. It wants 18 GB of disk below TMPDIR for the
model, whose weights are random: a run is killed after its last step, before it would save anything.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from posttrain_contract import layout
from posttrain_contract.metrics import MFU, TOKENS_PER_SECOND
from posttrain_contract.progress import HistoryLine
from posttrain_contract.shape import ModelShape
from support.faulty_training import ENDLESS, Attempt
from support.stages import start_stage_process

from benchmarks.finetune.child import ask
from benchmarks.finetune.inputs import VOCABULARY, make_rows, make_tokenizer
from benchmarks.finetune.stage import WARM_UP, Case, figures, moments, steps_of
from benchmarks.table import Baseline, Row, report, show

FLOORS: Final = {"LoRA r16": 8000.0, "all weights, 8-bit Adam": 5500.0}
"""Tokens a second that one H200 must reach: shared/reference/training.md, section 1.3."""
_POLL: Final = 0.2


@dataclass(frozen=True)
class Size:
    """How much is trained, and on what."""

    name: str
    shape: ModelShape
    rows: int
    steps: int
    case: Case
    """What all runs have in common."""

    @property
    def cases(self) -> dict[str, Case]:
        """The two runs."""
        lora, full = FLOORS
        return {lora: replace(self.case, lora_rank=16), full: replace(self.case, optimizer="adamw_bnb_8bit")}


SIZE: Final = Size(
    name="8B",
    # llm-jp-4-8b's, 8,590,200,832 weights.
    shape=ModelShape(
        layers=32, hidden=4096, heads=32, key_value_heads=8, intermediate=14_336, vocabulary=196_608, head_size=128
    ),
    rows=7_500,
    steps=50,
    case=Case(batch=2, max_length=4096, packing=True, precision="bf16", gpus=1),
)
DRY: Final = Size(
    name="dry run",
    shape=ModelShape(
        layers=2, hidden=64, heads=2, key_value_heads=1, intermediate=128, vocabulary=VOCABULARY, head_size=32
    ),
    rows=200,
    steps=WARM_UP + 5,
    case=Case(batch=1, max_length=256, packing=True, precision="bf16"),
)


def main() -> int:
    """Measures on the GPU, or shows dry that it works; the exit status is 1 when a target does not hold."""
    parser = argparse.ArgumentParser(description="Measures an 8B-shaped model on one GPU.")
    parser.add_argument("--dry-run", action="store_true", help="the same with a tiny model on the CPU")
    if parser.parse_args().dry_run:
        return show(measured(DRY))
    rows = on_gpu()
    return report("finetune-gpu", rows) if rows else 1


def on_gpu() -> list[Row]:
    """The rows of the 8B-shaped model; none, and a line that says so, where there is no GPU."""
    import torch

    # Of several the first: a process that sees more of them would spread its batch over all.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if not torch.cuda.is_available():
        sys.stdout.write("The 8B-shaped model was left out: there is no GPU.\n")
        return []
    device = torch.cuda.get_device_name()
    attention = "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"
    sys.stdout.write(f"8B-shaped model on {device} with {attention}\n")
    size = replace(SIZE, case=replace(SIZE.case, attention=attention))
    return measured(size, floors=FLOORS if "H200" in device else {}, held=True)


def measured(size: Size, *, floors: dict[str, float] | None = None, held: bool = False) -> list[Row]:
    """Runs everything. ``floors`` are of tokens a second by case; the costs of the runtime have targets when held."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="posttrain-bench-gpu-") as root:
        folder = Path(root)
        make_rows(folder / "rows.jsonl", size.rows)
        make_llama(folder / "model", folder / "rows.jsonl", size)
        for number, (what, case) in enumerate(size.cases.items()):
            name = f"{size.name} {what}"
            steps, began = trained(case, folder, folder / f"run-{number}", steps=size.steps)
            rows += throughput(name, steps, floor=(floors or {}).get(what))
            if case.lora_rank is not None:  # its steps are the shorter ones, so what the runtime adds weighs more
                hand = ask("by_hand", json.dumps(asdict(case)), str(folder), str(size.steps), str(folder / "by-hand"))
                rows += overhead(name, figures(moments(steps), began), hand, held=held)
    return rows


def make_llama(folder: Path, rows: Path, size: Size) -> None:
    """Writes a model of Llama's architecture with random weights in bf16, made where it will be trained."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer, shape = make_tokenizer(folder, rows), size.shape
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size,
        max_position_embeddings=size.case.max_length,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("cuda" if size.case.gpus else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="5GB")
    del model
    if size.case.gpus:
        torch.cuda.empty_cache()  # else half of the memory would stay with this process


def trained(case: Case, inputs: Path, root: Path, *, steps: int) -> tuple[list[HistoryLine], float]:
    """The first steps of a run without end by the stage program, and the Unix time at which it was started."""
    root.mkdir()
    (root / "inputs").symlink_to(inputs)
    config = case.config(steps=ENDLESS)
    began = time.time()
    stage = start_stage_process(config, root)
    try:
        while len(made := steps_of(root, config)) < steps:
            if stage.process.poll() is not None:
                sys.exit(f"the stage ended: {(stage.root / layout.TERMINATION_LOG).read_text()}\n{stage.log[-4000:]}")
            time.sleep(_POLL)
    finally:
        if stage.process.poll() is None:
            Attempt(stage, root).kill()
    return made[:steps], began


def throughput(name: str, steps: Sequence[HistoryLine], *, floor: float | None = None) -> list[Row]:
    """Tokens a second and MFU of a run, the medians of the steps that count; no MFU where the peak is not known."""
    counted = [step.metrics for step in steps[WARM_UP:]]
    rows = [Row(name, statistics.median(found[TOKENS_PER_SECOND] for found in counted), "tokens/s", at_least=floor)]
    shares = [found[MFU] for found in counted if MFU in found]
    return [*rows, Row(f"{name}, MFU", 100 * statistics.median(shares), "%")] if shares else rows


def overhead(name: str, ours: dict[str, float], theirs: dict[str, float], *, held: bool) -> list[Row]:
    """What the runtime costs beside the same by hand."""
    step = Baseline(1000 * theirs["step"], "TRL by hand")
    more = ours["first"] - theirs["first"]
    return [
        Row(f"{name}, a step", 1000 * ours["step"], "ms", step, ratio_at_most=1.02 if held else None),
        Row(f"{name}, start to the first step, more than by hand", more, "s", at_most=3 if held else None),
    ]


if __name__ == "__main__":
    sys.exit(main())
