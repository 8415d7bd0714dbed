"""Tiny inputs of the training stages: the quickstart's model and problems, and configurations that use them."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from posttrain_contract import layout
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.rl import RLSpec
from posttrain_contract.stage import FineTuneStage, ResolvedInput, RLStage, ServeStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.progress import ProgressReporter
from support.stages import run_facts

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "inputs" / "make_inputs.py"
TRAIN_ROWS, HELD_OUT_ROWS = 256, 24
MODEL, DATASET, HELD_OUT = "inputs/base-model", "inputs/train.jsonl", "inputs/heldout.jsonl"
_URI = {"uri": "pvc://posttrain/any"}
_TASKS = {**_URI, "columns": {"prompt": "problem", "answer": "answer"}}
_EVALUATION = {"generate": {"dataset": _TASKS, "maxNewTokens": 24, "batchSize": 16}}


def quickstart() -> ModuleType:
    """The quickstart's script as a module."""
    spec = importlib.util.spec_from_file_location("make_inputs", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tiny_inputs(folder: Path) -> None:
    """Writes the model folder and a few rows of training and held-out problems."""
    make_inputs = quickstart()
    rows, held_out = make_inputs.make_rows(0)
    hard = [row for row in rows if row["pass_rate"] is not None and row["pass_rate"] <= 0.7]
    make_inputs.make_base_model(folder / "base-model", rows, 0)
    write_jsonl(folder / "train.jsonl", hard[:TRAIN_ROWS])
    write_jsonl(folder / "heldout.jsonl", held_out[:HELD_OUT_ROWS])


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_pairs(path: Path, inputs: Path, *, count: int = 64) -> None:
    """Writes pairs of the right answer and one that is wrong by one."""
    lines = (inputs / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    write_jsonl(
        path,
        [
            {"prompt": row["problem"], "chosen": row["solution"], "rejected": f"#### {int(row['answer']) + 1}"}
            for row in rows
        ],
    )


def mount(root: Path, inputs: Path) -> Path:
    """A mount root whose ``inputs`` are the shared ones."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "inputs").symlink_to(inputs)
    return root


def resolved(path: str) -> ResolvedInput:
    """An input at a path below the mount root."""
    return ResolvedInput(uri=f"pvc://posttrain/{path}", path=path)


def finetune_config(
    *,
    steps: int,
    model_path: str = MODEL,
    dataset_path: str = DATASET,
    further_inputs: Mapping[str, str] = MappingProxyType({}),
    attempt: int = 1,
    **spec: Any,
) -> FineTuneStage:
    """A fine-tuning of the tiny model; keywords replace parts of the specification, ``training`` is merged.

    A part that is None is left out. ``further_inputs`` are paths by the names of inputs.
    """
    training = {"maxSteps": steps, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32", "maxLength": 128}
    document: dict[str, Any] = {
        "model": _URI,
        "dataset": {**_URI, "columns": {"prompt": "problem", "completion": "solution"}},
        "evaluation": _EVALUATION,
        **spec,
        "training": {**training, **spec.get("training", {})},
    }
    paths = {"model": model_path, "dataset": dataset_path, "evaluation.generate.dataset": HELD_OUT, **further_inputs}
    inputs = {name: resolved(path) for name, path in paths.items()}
    facts = run_facts("FineTuneJob", inputs=inputs, attempt=attempt)
    return FineTuneStage(
        run=facts, spec=FineTuneSpec.parse({name: part for name, part in document.items() if part is not None})
    )


def rl_config(*, steps: int, servers: tuple[str, ...], attempt: int = 1, **spec: Mapping[str, Any]) -> RLStage:
    """A reinforcement learning of the tiny model; keywords replace parts of the specification."""
    training = {"maxSteps": steps, "batchSize": 16, "learningRate": 5e-4, "precision": "fp32"}
    document = {
        "model": _URI,
        "dataset": _TASKS,
        "rewards": [{"name": "exact-match"}],
        "rollout": {"maxModelLength": 128, "sampling": {"maxNewTokens": 16}},
        "grpo": {"groupSize": 4},
        "training": training,
        "evaluation": _EVALUATION,
        **spec,
    }
    inputs = {
        "model": resolved(MODEL),
        "dataset": resolved(DATASET),
        "evaluation.generate.dataset": resolved(HELD_OUT),
    }
    return RLStage(run=run_facts("RLJob", inputs=inputs, attempt=attempt), spec=RLSpec.parse(document), servers=servers)


def serve_config() -> ServeStage:
    """A rollout server of the tiny model."""
    return ServeStage(
        run=run_facts("RLJob", inputs={"model": resolved(MODEL)}),
        tensor_parallel=1,
        max_model_length=128,
        max_sequences=32,
        cache_memory_mi=16,
        precision="fp32",
        seed=0,
    )


def run_folder(root: Path, kind: str) -> Path:
    """The run folder of the configurations above."""
    return root / run_facts(kind).folder


def history(root: Path, kind: str) -> dict[int, dict[str, float]]:
    """The figures of a run by step; of two values for one step the later one holds."""
    figures: dict[int, dict[str, float]] = {}
    for line in (run_folder(root, kind) / layout.METRICS).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        figures.setdefault(entry["step"], {}).update(entry["metrics"])
    return figures


def steps_done(root: Path, kind: str) -> int:
    """The newest optimizer step in a run's history; 0 when it has none yet."""
    path = run_folder(root, kind) / layout.METRICS
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def context_in_process(config: Any, root: Path) -> StageContext[Any]:
    """A context to call a stage's function in the test's own process."""
    scratch = root / "scratch"
    scratch.mkdir()
    metrics = root / config.run.folder / layout.METRICS
    metrics.parent.mkdir(parents=True, exist_ok=True)
    progress = ProgressReporter(scratch / "progress.json", history=metrics)
    return StageContext(config=config, config_path=root / layout.CONFIG_FILE, scratch=scratch, progress=progress)
