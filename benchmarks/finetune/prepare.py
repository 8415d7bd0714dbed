"""One preparation of the benchmark's rows in a process of its own: prints its seconds and peak memory as JSON."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.finetune.stage import MAX_LENGTH
from benchmarks.memory import PeakMemory


def ours(folder: Path, *, packing: bool) -> Callable[[], object]:
    """Our preparation, from the file to a published dataset."""
    from posttrain_contract.examples import ExampleDataset
    from posttrain_training.preparation.key import Shape
    from posttrain_training.preparation.prepare import Preparation, prepare

    dataset = ExampleDataset.parse({"uri": "pvc://bench/rows", "format": "question-answer"})
    shape = Shape(max_length=MAX_LENGTH, packing=packing)
    task = Preparation(dataset, folder / "rows.jsonl", folder / "model", shape, "spec.dataset")
    root = Path(tempfile.mkdtemp(dir=folder))
    return lambda: prepare(task, root, report=lambda *_: None, check_stop=lambda: None)


def encode_batch(folder: Path) -> Callable[[], object]:
    """The tokenizer alone, over texts that are rendered already, by as many threads as there are cores."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with (folder / "rows.jsonl").open(encoding="utf-8") as lines:
        texts = [tokenizer.apply_chat_template(_messages(json.loads(line)), tokenize=False) for line in lines]

    def run() -> None:
        for start in range(0, len(texts), 1000):
            tokenizer.backend_tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)

    return run


def trl(folder: Path) -> Callable[[], object]:
    """TRL's own preparation, by as many processes as there are cores; nothing is trained."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    with (folder / "rows.jsonl").open(encoding="utf-8") as lines:
        rows = [_messages(json.loads(line)) for line in lines]
    examples = datasets.Dataset.from_list([{"prompt": row[:1], "completion": row[1:]} for row in rows])
    arguments = SFTConfig(
        output_dir=str(folder / "trl"),
        max_length=MAX_LENGTH,
        use_cpu=True,
        bf16=False,
        report_to="none",
        completion_only_loss=True,
        dataset_num_proc=os.cpu_count(),
    )
    return lambda: SFTTrainer(model=model, args=arguments, train_dataset=examples, processing_class=tokenizer)


def _messages(row: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


def main() -> None:
    """Runs one of them."""
    how, folder = sys.argv[1], Path(sys.argv[2])
    ways: dict[str, Callable[[Path], Callable[[], object]]] = {
        "ours": lambda path: ours(path, packing=False),
        "packed": lambda path: ours(path, packing=True),
        "encode_batch": encode_batch,
        "trl": trl,
    }
    run = ways[how](folder)
    memory = PeakMemory(os.getpid())
    memory.start()
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    memory.stop()
    answer: dict[str, Any] = {"seconds": seconds, "peak_mb": memory.peak_bytes / 1e6}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
