"""Which changes to a training would make it fit into the memory of a GPU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.memory import estimate
from posttrain_contract.shape import ModelShape
from posttrain_contract.training import Training

_MOST = 3
_SHORTEST = 8
"""Tokens; the least that training.maxLength may be."""

MORE = "distributed.nodes or run.resources: more or larger GPUs"
"""What is left when no change to the training suffices."""


@dataclass(frozen=True)
class Change:
    """One change to a specification."""

    text: str
    """As ``field: value``."""
    values: Mapping[str, Any]
    """The fields that it sets, as they are written in a manifest."""


def what_would_fit(spec: FineTuneSpec, shape: ModelShape, *, room: int) -> tuple[Change, ...]:
    """At most three changes after which the job needs no more than ``room`` bytes on a GPU; empty when none suffice.

    What changes the model or its data is named only when nothing before it helps, and then as little of it as helps.
    """
    kinds = [list(kind) for kind in changes(spec)]
    for number, kind in enumerate(kinds):
        for change, count in product(kind, range(_MOST)):
            for before in combinations(kinds[:number], count):
                for smaller in product(*before):
                    after = changed(spec, (*smaller, change))
                    if after is not None and estimate(after, shape).total <= room:
                        return (*smaller, change)
    return ()


def changes(spec: FineTuneSpec) -> tuple[Iterator[Change], ...]:
    """Each kind of change, the smallest one first; the first three kinds train the very same thing."""
    training = spec.training
    return smaller_batches(training), full_checkpointing(training), _strategy(spec), _lighter(spec), _lengths(spec)


def least_changes(spec: FineTuneSpec) -> list[str]:
    """Of each kind of change the smallest one that may be made alone, at most three; who has no more is told ``MORE``.

    Each needs less memory; whether it fits is not asked.
    """
    found = (next(kind, None) for kind in changes(spec))
    texts = [change.text for change in found if change is not None and changed(spec, (change,)) is not None]
    return [*texts, MORE][:_MOST]


def changed(spec: FineTuneSpec, variant: tuple[Change, ...]) -> FineTuneSpec | None:
    """The specification after these changes; None where it would not be valid."""
    fields = spec.dump()
    for change in variant:
        for name, values in change.values.items():
            fields[name] = {**(fields[name] or {}), **values}
    try:
        return FineTuneSpec.parse(fields)
    except ValidationError:
        return None


def smaller_batches(training: Training) -> Iterator[Change]:
    """Ever smaller batches of the same number of rows in a step, each at most half the one before."""
    size, rows = training.batch_size, training.batch_size * training.gradient_accumulation
    while size > 1:
        size = next(smaller for smaller in range(size // 2, 0, -1) if rows % smaller == 0)
        text = f"training.batchSize: {size} with training.gradientAccumulation: {rows // size} (the same step)"
        yield Change(text, {"training": {"batchSize": size, "gradientAccumulation": rows // size}})


def full_checkpointing(training: Training) -> Iterator[Change]:
    """Activations computed again instead of kept, unless they are."""
    if training.gradient_checkpointing != "full":
        text = "training.gradientCheckpointing: full (costs a third of the speed)"
        yield Change(text, {"training": {"gradientCheckpointing": "full"}})


def _strategy(spec: FineTuneSpec) -> Iterator[Change]:
    gang = spec.distributed
    if gang.nodes * gang.processes_per_node > 1 and gang.strategy in ("ddp", "zero1", "zero2"):
        text = "distributed.strategy: zero3 (splits weights, gradients and optimizer among the GPUs)"
        yield Change(text, {"distributed": {"strategy": "zero3"}})


def _lighter(spec: FineTuneSpec) -> Iterator[Change]:
    if spec.adapter is None:
        yield Change("adapter: {} (trains small matrices in place of all weights)", {"adapter": {}})
        text = "adapter: {quantization: nf4} (trains small matrices beside weights in 4 bits)"
        yield Change(text, {"adapter": {"quantization": "nf4"}})
    elif spec.adapter.quantization is None:
        text = "adapter.quantization: nf4 (holds the frozen weights in 4 bits)"
        yield Change(text, {"adapter": {"quantization": "nf4"}})


def _lengths(spec: FineTuneSpec) -> Iterator[Change]:
    length = spec.training.max_length
    while length >= 2 * _SHORTEST:
        length //= 2
        yield Change(f"training.maxLength: {length} (cuts longer rows)", {"training": {"maxLength": length}})
