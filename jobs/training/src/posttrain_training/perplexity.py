"""Perplexity: how surprised a model is by held-out answers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from posttrain_runtime.errors import Preempted
from posttrain_runtime.progress import ProgressReporter

from posttrain_training import gang
from posttrain_training.evaluation import PHASE
from posttrain_training.preparation.encoding import IGNORED

_CHUNK: Final = 1024
"""Positions whose logits are at hand in float32 at once: with a large vocabulary they are the largest tensor."""

Row = Mapping[str, Sequence[int]]
"""``input_ids`` and ``labels`` of one text, equally long."""


@torch.no_grad()
def perplexity(model: Any, batches: Iterable[Mapping[str, Any]]) -> float:
    """The exponential of the mean negative log-likelihood of all unmasked labels, the same in every rank.

    A batch has ``input_ids``, ``attention_mask`` and ``labels`` of shape (rows, tokens), on the model's device; each
    rank brings its own, as many as the others. Every token weighs the same, whatever batch it is in. Infinite without
    any label, and where the mean is too large for a float.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    try:
        for batch in batches:
            loss, tokens = _negative_log_likelihood(model, batch)
            total, count = total + loss, count + tokens
    finally:
        model.train(was_training)
    sums = gang.gather((total, count))
    whole, tokens = sum(share[0] for share in sums), sum(share[1] for share in sums)
    try:
        return math.exp(whole / tokens) if tokens else math.inf
    except OverflowError:
        return math.inf


def _negative_log_likelihood(model: Any, batch: Mapping[str, Any]) -> tuple[float, int]:
    """The sum over the labels that count, in nats, and their number; the label of a position is the next token."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"][:, 1:]
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for start in range(0, labels.shape[1], _CHUNK):
        part = labels[:, start : start + _CHUNK]
        scores = logits[:, start : start + part.shape[1]].float()
        total += torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), part.flatten(), ignore_index=IGNORED, reduction="sum"
        )
    return float(total), int((labels != IGNORED).sum())


class PerplexityEvaluator:
    """Scores a model on rows of tokens; every rank takes its share of them."""

    def __init__(
        self, rows: Sequence[Row], *, batch_size: int, padding: int, stop: gang.Stop, progress: ProgressReporter
    ) -> None:
        """``padding`` is the token that fills rows up; it never counts."""
        self._rows = rows
        self._batch_size = batch_size
        self._padding = padding
        self._stop = stop
        self._progress = progress

    def score(self, model: Any, *, step: int) -> float:
        """The perplexity of the rows, the same in every rank. Raises ``Preempted`` when the run was asked to stop."""
        score: float = perplexity(model, self._batches(model.device, step=step))
        return score

    def _batches(self, device: Any, *, step: int) -> Iterator[Mapping[str, Any]]:
        """This rank's rows, in as many batches as the other ranks have: a sharded model computes in all of them."""
        wide = self._batch_size * gang.size()
        for start in range(0, len(self._rows), wide):
            if self._stop.agreed():
                raise Preempted(saved=False)
            self._progress.update(PHASE, step=step)  # a sign of life: all rows may take longer than a stall may last
            own = [self._rows[index] for index in range(start, min(start + wide, len(self._rows)))]
            yield self._padded(own[gang.rank() :: gang.size()] or [_uncounted(own[0])], device)

    def _padded(self, rows: Sequence[Row], device: Any) -> Mapping[str, Any]:
        longest = max(len(row["input_ids"]) for row in rows)

        def filled(values: Sequence[int], filler: int) -> list[int]:
            return [*values, *[filler] * (longest - len(values))]

        batch = {
            "input_ids": [filled(row["input_ids"], self._padding) for row in rows],
            "labels": [filled(row["labels"], IGNORED) for row in rows],
            "attention_mask": [filled([1] * len(row["input_ids"]), 0) for row in rows],
        }
        return {name: torch.tensor(values, device=device) for name, values in batch.items()}


def _uncounted(row: Row) -> Row:
    """A row that a rank without one computes along with the others."""
    return {"input_ids": row["input_ids"], "labels": [IGNORED] * len(row["labels"])}
