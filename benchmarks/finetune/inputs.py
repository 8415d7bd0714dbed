"""Rows, a tokenizer made for them, and a small model with random weights."""

import json
import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from posttrain_training.preparation.templates import TEMPLATES

GSM8K: Final = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
VOCABULARY: Final = 16_000
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_rows(path: Path, count: int) -> int:
    """Writes rows with ``question`` and ``answer``; returns how many."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(islice(_rows(), count)):
            # No two are alike, so nothing can be remembered from one to the next.
            file.write(json.dumps({**row, "question": f"{number}. {row['question']}"}) + "\n")
    return count


def _rows() -> Iterator[dict[str, str]]:
    if GSM8K.is_file():
        lines = GSM8K.read_text(encoding="utf-8").splitlines()
        return cycle([json.loads(line) for line in lines])
    return _sums()


def _sums() -> Iterator[dict[str, str]]:
    chance = random.Random(0)
    while True:
        numbers = [chance.randint(1, 999) for _ in range(8)]
        steps = "\n".join(f"After {n} there are {sum(numbers[: i + 1])}." for i, n in enumerate(numbers))
        question = f"Somebody buys {', then '.join(map(str, numbers))} books. How many are there in the end?"
        yield {"question": question, "answer": f"{steps}\n#### {sum(numbers)}"}


def make_tokenizer(folder: Path, rows: Path) -> Any:
    """Writes and returns a tokenizer of up to 16,000 tokens that is made for the rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with rows.open(encoding="utf-8") as lines:
        texts = [" ".join(json.loads(line).values()) for line in islice(lines, 8000)]
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=_SPECIAL[2], pad_token=_SPECIAL[0])
    tokenizer.chat_template = TEMPLATES["chatml"]
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(folder: Path, rows: Path) -> None:
    """Writes a model folder of about two million parameters, nearly all of them embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer(folder, rows)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
