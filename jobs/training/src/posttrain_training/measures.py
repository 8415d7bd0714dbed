"""What the steps of a run cost: rates, shares of time, goodput.

Everything is read off the clock of this process at moments when the trainer has the loss of a step in hand, which it
waits for anyway: nothing here waits for a device.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from posttrain_contract.metrics import GOODPUT, MFU, TOKENS_PER_SECOND
from transformers import TrainerCallback

from posttrain_training import flops, gang
from posttrain_training.gpus import Gpus
from posttrain_training.history import History
from posttrain_training.models import size

STEP_SECONDS: Final = "stepSeconds"
"""Seconds from the start of a step until its loss is known, less evaluation: the productive time."""
DATA_SECONDS: Final = "dataSeconds"
"""Seconds that a step waited for its rows."""
CHECKPOINT_SECONDS: Final = "checkpointSeconds"
"""Seconds that the newest checkpoint took, from the loss of its step until it was sealed and old ones were removed."""
TOKENS: Final = "tokens"
"""Tokens trained on so far, without padding, over all attempts."""
_SHARES: Final = ("stepShare", "evaluationShare", "checkpointShare")
"""Of the time of the present attempt; a result has those of the last one."""
_PARTS: Final = ("data", "step", "evaluation", "checkpoint")


class Measures(TrainerCallback):
    """Measures every step. Add it before whoever tells its ``figures``, and its ``closing`` as the last callback."""

    def __init__(self, history: History, *, resumed_at: int, compute: "Compute | None" = None) -> None:
        """``history`` is that of the earlier attempts; this one goes on after step ``resumed_at``."""
        self.figures: dict[str, float] = {}
        """Of the step whose loss is known."""
        self.closing = _Closing(self)
        self._compute = compute
        self._gpus = Gpus() if gang.rank() == 0 else None
        self._tokens_before = history.of(TOKENS).get(resumed_at, 0.0)
        self._tokens = 0.0
        self._productive_before = sum(s for step, s in history.of(STEP_SECONDS).items() if step <= resumed_at)
        self._begun_at = history.begun_at
        self._spent = dict.fromkeys(_PARTS, 0.0)
        self._train_begin = self._step_begin = self._mark = time.perf_counter()
        self._data = self._evaluated = 0.0
        self.checkpoint_seconds: float | None = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            self._evaluated += seconds
            self._spent["evaluation"] += seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._train_begin = self._mark = time.perf_counter()
        self._evaluated = 0.0
        self._spent = dict.fromkeys(_PARTS, 0.0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_begin = time.perf_counter()
        self._data = self._step_begin - self._mark - self._evaluated
        self._evaluated = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        now = time.perf_counter()
        step = now - self._step_begin - self._evaluated
        self._spent["step"] += step
        self._spent["data"] += self._data
        rows = args.train_batch_size * args.gradient_accumulation_steps * gang.size()
        self.figures = {
            STEP_SECONDS: step,
            DATA_SECONDS: self._data,
            "samplesPerSecond": rows / (step + self._data),
            **self._throughput(logs, rows=rows, seconds=step + self._data),
            **self._shares(now),
            **(self._gpus.figures() if self._gpus else {}),
        }

    def _throughput(self, logs: Mapping[str, Any], *, rows: int, seconds: float) -> dict[str, float]:
        if (total := logs.get("num_tokens")) is None:
            return {}
        tokens = float(total) - self._tokens
        self._tokens = float(total)
        figures = {TOKENS: self._tokens_before + self._tokens, TOKENS_PER_SECOND: tokens / seconds}
        mfu = self._compute.utilization(tokens / seconds, length=tokens / rows) if self._compute else None
        return figures if mfu is None else {**figures, MFU: mfu}

    def _shares(self, now: float) -> dict[str, float]:
        whole = now - self._train_begin
        shares = {
            "dataWaitShare": self._spent["data"] / whole,
            **{share: self._spent[share.removesuffix("Share")] / whole for share in _SHARES},
        }
        if self.checkpoint_seconds is not None:
            shares[CHECKPOINT_SECONDS] = self.checkpoint_seconds
        if self._begun_at is not None and (wall := time.time() - self._begun_at) > 0:
            shares[GOODPUT] = min(1.0, (self._productive_before + self._spent["step"]) / wall)
        return shares

    def close_step(self) -> None:
        """From here on this process waits for rows or saves."""
        self._mark = time.perf_counter()
        self._evaluated = 0.0

    def close_save(self) -> None:
        """A checkpoint is sealed."""
        now = time.perf_counter()
        self.checkpoint_seconds = now - self._mark
        self._spent["checkpoint"] += self.checkpoint_seconds
        self._mark = now


class _Closing(TrainerCallback):
    """The end of what happens after a step."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._measures.close_step()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._measures.close_save()


class Compute:
    """The model's arithmetic against the devices' peak."""

    def __init__(self, config: Any, *, all_weights: bool, peak: float) -> None:
        self._config = config
        self._all_weights = all_weights
        self._peak = peak

    def utilization(self, tokens_per_second: float, *, length: float) -> float | None:
        """The share of the peak of all devices, 0 to 1, for rows of ``length`` tokens; None when it is not known."""
        cost = flops.per_token(self._config, length=length, all_weights=self._all_weights)
        return None if cost is None else cost * tokens_per_second / (self._peak * gang.size())


def compute_of(model: Any, device: Any) -> Compute | None:
    """The arithmetic of a model that is trained on a device; None where the device's peak is not known, as on a CPU."""
    if device.type != "cuda" or next(model.parameters()).dtype is torch.float32:
        return None
    rate = flops.peak(torch.cuda.get_device_name(device))
    counts = [(size(weights), weights.requires_grad) for weights in model.parameters()]
    trained = sum(count for count, is_trained in counts if is_trained)
    all_weights = trained * 2 > sum(count for count, _ in counts)
    return None if rate is None else Compute(model.config.get_text_config(), all_weights=all_weights, peak=rate)


def overall(history: History) -> dict[str, float | None]:
    """The figures of a whole run for its result, over all its attempts; a repeated step counts once.

    ``goodput`` is the productive time over the time since the first attempt began, whatever lay between.
    """
    productive, waited = (sum(history.of(name).values()) for name in (STEP_SECONDS, DATA_SECONDS))
    tokens = history.last(TOKENS)
    busy = productive + waited
    wall = None if history.begun_at is None else time.time() - history.begun_at
    return {
        TOKENS_PER_SECOND: tokens / busy if tokens and busy else None,
        "samplesPerSecond": history.mean("samplesPerSecond"),
        MFU: history.mean(MFU),
        "gpuUtilization": history.mean("gpuUtilization"),
        "gpuMemory": history.largest("gpuMemory"),
        "dataWaitShare": waited / busy if busy else None,
        **{name: history.last(name) for name in _SHARES},
        CHECKPOINT_SECONDS: history.last(CHECKPOINT_SECONDS),
        GOODPUT: min(1.0, productive / wall) if wall and productive else None,
    }
