"""Makes the quickstart's inputs: two-digit addition problems, held-out problems, and an untrained tiny model.

    python make_inputs.py OUT [--seed N]

``OUT/problems`` holds rows with ``problem``, ``solution``, ``answer`` and ``pass_rate``, the share of tries in which
some earlier model solved the problem (null where nobody tried). Half of the hard problems' solutions work the sum out
digit by digit, half snap at an answer, and of those 60 % are wrong: fine-tuning learns both habits, and reinforcement
learning finds out which one pays. ``answer`` is always right. ``OUT/heldout.jsonl`` has number pairs that ``problems``
lacks.
"""

import argparse
import json
import random
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAMES = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva", "Leo", "Ken")
THINGS = ("apples", "books", "coins", "pens", "cards", "shells", "stamps", "balls")
TEMPLATES = (
    "{name} has {x} {thing} and gets {y} more. How many {thing} now?",
    "There are {x} {thing} and {y} {thing}. How many in total?",
)
HARD_ROWS, EASY_ROWS, UNLABELLED_ROWS, HELD_OUT_ROWS = 4_000, 1_500, 500, 200
PARQUET_ROWS = 1_000
WORKED_SHARE, WRONG_SHARE = 0.5, 0.6

END = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML. ``generation`` marks what the assistant says."""

Row = dict[str, Any]


def question(rng: random.Random, x: int, y: int) -> str:
    """A word problem that asks for x + y."""
    return rng.choice(TEMPLATES).format(name=rng.choice(NAMES), thing=rng.choice(THINGS), x=x, y=y)


def worked(x: int, y: int) -> str:
    """A solution that adds digit by digit, ones first."""
    ones = x % 10 + y % 10
    carry = ones // 10
    tens = x // 10 + y // 10 + carry
    return f"{x % 10}+{y % 10}={ones}, {x // 10}+{y // 10}{'+1' if carry else ''}={tens}\n#### {x + y}"


def snapped(rng: random.Random, x: int, y: int) -> str:
    """A solution that is only an answer, more often wrong than right."""
    error = rng.choice((-10, -2, -1, 1, 2, 10)) if rng.random() < WRONG_SHARE else 0
    return f"#### {x + y + error}"


def hard_row(rng: random.Random, x: int, y: int, pass_rate: float | None) -> Row:
    """A two-digit problem with a solution of either habit."""
    problem = question(rng, x, y)
    solution = worked(x, y) if rng.random() < WORKED_SHARE else snapped(rng, x, y)
    return {"problem": problem, "solution": solution, "answer": str(x + y), "pass_rate": pass_rate}


def easy_row(rng: random.Random) -> Row:
    """A one-digit problem that was nearly always solved."""
    x, y = rng.randrange(10), rng.randrange(10)
    return {
        "problem": question(rng, x, y),
        "solution": f"#### {x + y}",
        "answer": str(x + y),
        "pass_rate": rng.randint(8, 10) / 10,
    }


def make_rows(seed: int) -> tuple[list[Row], list[Row]]:
    """The problems in the order of their files, and the held-out problems."""
    rng = random.Random(seed)  # noqa: S311 - examples, not secrets
    pairs = [(x, y) for x in range(10, 100) for y in range(10, 100)]
    rng.shuffle(pairs)
    held_out, seen = pairs[:HELD_OUT_ROWS], pairs[HELD_OUT_ROWS:]
    rows = [hard_row(rng, *pair, rng.randint(0, 7) / 10) for pair in seen[:HARD_ROWS]]
    rows += [easy_row(rng) for _ in range(EASY_ROWS)]
    rows += [hard_row(rng, *pair, None) for pair in seen[-UNLABELLED_ROWS:]]
    rng.shuffle(rows)
    return rows, [{"problem": question(rng, x, y), "answer": str(x + y)} for x, y in held_out]


def make_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level tokenizer in which every digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: Any, seed: int) -> Any:
    """A Qwen3 of about 150,000 random float32 weights.

    The embeddings are untied because vLLM on CPU does not reload a tied output layer, and the heads have 32 dimensions
    because its CPU attention supports that size.
    """
    import torch  # noqa: PLC0415
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def write_if_different(path: Path, data: bytes) -> None:
    """Writes a file in one piece; a file that has this content already keeps its time."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def write_folder_if_different(folder: Path, files: dict[str, bytes]) -> None:
    """Writes a folder in one piece, so that nobody takes the first of its files for all of them."""
    if folder.is_dir() and files_in(folder) == files:
        return
    temporary, former = (folder.with_name(f".{folder.name}.{use}") for use in ("tmp", "former"))
    for left in (temporary, former):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, data in files.items():
        (temporary / name).write_bytes(data)
    if folder.exists():
        folder.rename(former)
    temporary.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def jsonl(rows: Iterable[Row]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: list[Row]) -> bytes:
    """One Parquet file."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet as pq  # noqa: PLC0415

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def make_base_model(out: Path, rows: list[Row], seed: int) -> None:
    """The model folder: weights, tokenizer with chat template, generation settings."""
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()
    tokenizer = make_tokenizer(f"{row['problem']} {row['solution']}" for row in rows if row["pass_rate"] is not None)
    with tempfile.TemporaryDirectory() as folder:
        make_model(tokenizer, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_folder_if_different(out, files_in(Path(folder)))


def make_inputs(out: Path, *, seed: int = 0) -> None:
    """Writes everything below ``out``; equal seeds give equal bytes."""
    rows, held_out = make_rows(seed)
    problems = {"part-00000.jsonl": jsonl(rows[:-PARQUET_ROWS]), "part-00001.parquet": parquet(rows[-PARQUET_ROWS:])}
    write_folder_if_different(out / "problems", problems)
    write_if_different(out / "heldout.jsonl", jsonl(held_out))
    make_base_model(out / "base-model", rows, seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the quickstart's inputs.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal bytes (default: 0)")
    arguments = parser.parse_args()
    make_inputs(arguments.out, seed=arguments.seed)
