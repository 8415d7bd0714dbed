"""What somebody would write by hand: TRL on the benchmark's model and rows, with the arguments of the stage program."""

import json
import sys
import time
from itertools import islice
from pathlib import Path

BEGAN = time.time()


def main() -> None:
    """Trains, and prints the seconds of a step and to the first one as JSON."""
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from benchmarks.finetune.stage import LEARNING_RATE, Case, figures

    case, folder, steps, output = Case(**json.loads(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    times: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc] # it has no types
        def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
            if logs and "loss" in logs:
                times.append(time.time())

    with (folder / "rows.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, case.samples)]
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
        per_device_train_batch_size=case.batch,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim=case.optimizer,
        max_length=case.max_length,
        packing=case.packing,
        completion_only_loss=True,
        gradient_checkpointing=False,
        use_cpu=case.gpus == 0,
        bf16=case.precision == "bf16",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model",
        dtype={"fp32": "float32", "bf16": "bfloat16"}[case.precision],
        attn_implementation=case.attention,
    )
    rank = case.lora_rank
    lora = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear") if rank else None
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=lora,
        callbacks=[Watch()],
    )
    trainer.train()
    sys.stdout.write(json.dumps(figures(times, BEGAN)) + "\n")


if __name__ == "__main__":
    main()
