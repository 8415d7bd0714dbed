"""What somebody would write by hand: TRL on the benchmark's model and rows, with the arguments of the stage program."""

import json
import sys
import time
from pathlib import Path

BEGAN = time.time()


def main() -> None:
    """Trains, and prints the seconds of a step and to the first one as JSON."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from benchmarks.finetune.stage import BATCH, MAX_LENGTH, figures

    folder, steps, output = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    times: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc] # it has no types
        def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
            if logs and "loss" in logs:
                times.append(time.time())

    with (folder / "rows.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(BATCH * steps)]
    examples = datasets.Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["question"]}],
                "completion": [{"role": "assistant", "content": row["answer"]}],
            }
            for row in rows
        ]
    )
    arguments = SFTConfig(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        max_length=MAX_LENGTH,
        completion_only_loss=True,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model"),
        args=arguments,
        train_dataset=examples,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Watch()],
    )
    trainer.train()
    sys.stdout.write(json.dumps(figures(times, BEGAN)) + "\n")


if __name__ == "__main__":
    main()
