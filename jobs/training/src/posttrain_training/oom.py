"""Running out of memory: which settings of this very configuration would need less. No ML library is imported here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Literal

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError, classify

Checkpointing = Literal["off", "selective", "full"]
Weights = Literal["all", "adapter", "fixed"]
"""What is trained: all weights, an adapter beside weights that could be quantized, or what no field makes smaller."""

_NAMED = 3
_SHORTEST = 16
"""Tokens; half of it is the least that training.maxLength may be."""
_LIGHTER: Mapping[Weights, str] = MappingProxyType(
    {
        "all": "adapter: {} (trains small matrices in place of all weights)",
        "adapter": "adapter.quantization: nf4 (holds the frozen weights in 4 bits)",
    }
)


def remedies(
    *,
    batch_size: int,
    accumulation: int,
    max_length: int | None,
    checkpointing: Checkpointing,
    weights: Weights,
) -> list[str]:
    """The three changes to a configuration that save most memory at the least cost, as ``field: value``.

    ``max_length`` is in tokens, None where no field limits it. The first ones train the very same thing; those that
    change the model or its data come last. What is at its limit already is not named.
    """
    found = []
    if batch_size > 1:
        rows, passes = _smaller(batch_size, accumulation)
        found.append(f"training.batchSize: {rows} with training.gradientAccumulation: {passes} (the same step)")
    if checkpointing != "full":
        found.append("training.gradientCheckpointing: full (costs a third of the speed)")
    if weights in _LIGHTER:
        found.append(_LIGHTER[weights])
    if max_length is not None and max_length >= _SHORTEST:
        found.append(f"training.maxLength: {max_length // 2} (cuts longer rows)")
    return [*found, "distributed.nodes or run.resources: more or larger GPUs"][:_NAMED]


def _smaller(batch_size: int, accumulation: int) -> tuple[int, int]:
    """At most half the batch, with the same number of rows in a step."""
    rows = batch_size * accumulation
    smaller = next(size for size in range(batch_size // 2, 0, -1) if rows % size == 0)
    return smaller, rows // smaller


@contextmanager
def naming(changes: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Turns a lack of memory into ``StageError`` (OUT_OF_MEMORY) that names these changes."""
    try:
        yield
    except Exception as error:
        if classify(error).code is not ExitCode.OUT_OF_MEMORY:
            raise
        told = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"spec.training: out of memory ({told}); each of these needs less: {'; '.join(changes())}"
        raise StageError(ExitCode.OUT_OF_MEMORY, "OutOfMemory", message) from error
