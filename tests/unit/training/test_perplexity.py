"""Perplexity: every unmasked token weighs the same, and padding and batches change nothing."""

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from posttrain_runtime.errors import Preempted
from posttrain_runtime.progress import ProgressReporter, read_progress
from posttrain_training import gang, perplexity
from posttrain_training.perplexity import PerplexityEvaluator, Row
from transformers import LlamaConfig, LlamaForCausalLM

CPU = torch.device("cpu")
Make = Callable[..., PerplexityEvaluator]
ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]},
    {"input_ids": [9, 8, 7], "labels": [-100, 8, 7]},
    {"input_ids": [3, 4, 5, 6, 7, 8, 9, 10], "labels": [-100, -100, -100, -100, -100, -100, -100, 10]},
]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=32, initializer_range=0.5))


@pytest.fixture
def evaluator(tmp_path: Path) -> Make:
    """Makes evaluators that tell their progress in ``progress.json``."""
    progress = ProgressReporter(tmp_path / "progress.json", history=tmp_path / "metrics.jsonl")

    def made(rows: Sequence[Row], *, batch_size: int, stop: threading.Event | None = None) -> PerplexityEvaluator:
        asked = gang.Stop(stop or threading.Event(), device=CPU)
        return PerplexityEvaluator(rows, batch_size=batch_size, padding=0, stop=asked, progress=progress)

    return made


def expected(model: Any) -> float:
    """By the library's own loss of each row alone."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in ROWS:
            tokens = sum(label != -100 for label in row["labels"])
            loss = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
            total, count = total + float(loss) * tokens, count + tokens
    return math.exp(total / count)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_it_is_the_mean_over_tokens_whatever_the_batches(evaluator: Make, model: Any, batch_size: int) -> None:
    model.train()
    assert evaluator(ROWS, batch_size=batch_size).score(model, step=0) == pytest.approx(expected(model), rel=1e-5)
    assert model.training, "the model is left as it was"


def test_long_rows_are_scored_in_parts(evaluator: Make, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "_CHUNK", 2)
    assert evaluator(ROWS, batch_size=8).score(model, step=0) == pytest.approx(expected(model), rel=1e-5)


def test_without_a_label_it_is_infinite(evaluator: Make, model: Any) -> None:
    rows = [{"input_ids": [1, 2], "labels": [-100, -100]}]
    assert evaluator(rows, batch_size=1).score(model, step=0) == math.inf


def test_ranks_share_the_rows_and_compute_equally_often(
    evaluator: Make, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    for rank in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(gang, "size", lambda: 2)
            patched.setattr(gang, "rank", lambda rank=rank: rank)
            patched.setattr(gang.Stop, "agreed", lambda _: False)
            shares.append(list(evaluator(ROWS, batch_size=1)._batches(CPU, step=0)))
    assert [len(share) for share in shares] == [2, 2]
    with torch.no_grad():
        counted = [perplexity._negative_log_likelihood(model, batch) for share in shares for batch in share]
    total, tokens = sum(part[0] for part in counted), sum(part[1] for part in counted)
    assert math.exp(total / tokens) == pytest.approx(expected(model), rel=1e-5)


def test_every_batch_is_a_sign_of_life(evaluator: Make, model: Any, tmp_path: Path) -> None:
    evaluator(ROWS, batch_size=1).score(model, step=7)
    told = read_progress(tmp_path / "progress.json")
    assert told is not None
    assert (told.phase, told.step) == ("evaluating", 7)


def test_a_stop_request_ends_it(evaluator: Make, model: Any) -> None:
    asked = threading.Event()
    asked.set()
    with pytest.raises(Preempted):
        evaluator(ROWS, batch_size=1, stop=asked).score(model, step=0)
