"""Perplexity: every unmasked token weighs the same, and padding and batches change nothing."""

import math
import threading
from typing import Any

import pytest
import torch
from posttrain_runtime.errors import Preempted
from posttrain_training import gang, perplexity
from posttrain_training.perplexity import PerplexityEvaluator
from transformers import LlamaConfig, LlamaForCausalLM

CPU = torch.device("cpu")
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


def evaluator(rows: list[dict[str, list[int]]], *, batch_size: int, stop: threading.Event | None = None) -> Any:
    asked = gang.Stop(stop or threading.Event(), device=CPU)
    return PerplexityEvaluator(rows, batch_size=batch_size, padding=0, stop=asked)


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
def test_it_is_the_mean_over_tokens_whatever_the_batches(model: Any, batch_size: int) -> None:
    model.train()
    assert evaluator(ROWS, batch_size=batch_size).score(model, step=0) == pytest.approx(expected(model), rel=1e-5)
    assert model.training, "the model is left as it was"


def test_long_rows_are_scored_in_parts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "_CHUNK", 2)
    assert evaluator(ROWS, batch_size=8).score(model, step=0) == pytest.approx(expected(model), rel=1e-5)


def test_without_a_label_it_is_infinite(model: Any) -> None:
    rows = [{"input_ids": [1, 2], "labels": [-100, -100]}]
    assert evaluator(rows, batch_size=1).score(model, step=0) == math.inf


def test_ranks_share_the_rows_and_compute_equally_often(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(gang, "size", lambda: 2)
            patched.setattr(gang, "rank", lambda rank=rank: rank)
            patched.setattr(gang.Stop, "agreed", lambda _: False)
            shares.append(list(evaluator(ROWS, batch_size=1)._batches(CPU)))
    assert [len(share) for share in shares] == [2, 2]
    with torch.no_grad():
        counted = [perplexity._negative_log_likelihood(model, batch) for share in shares for batch in share]
    total, tokens = sum(part[0] for part in counted), sum(part[1] for part in counted)
    assert math.exp(total / tokens) == pytest.approx(expected(model), rel=1e-5)


def test_a_stop_request_ends_it(model: Any) -> None:
    asked = threading.Event()
    asked.set()
    with pytest.raises(Preempted):
        evaluator(ROWS, batch_size=1, stop=asked).score(model, step=0)
