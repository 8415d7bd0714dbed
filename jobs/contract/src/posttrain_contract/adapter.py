"""Training an adapter instead of all weights, and what is published then."""

from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import Input

ADAPTER_INPUT = "adapter.initial"
"""Name of the adapter to go on from among the inputs of a run."""


class Lora(Model):
    """Low-rank adaptation: the base model is frozen, small matrices beside its linear layers are trained."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the added matrices.")
    alpha: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Scale: the added product is multiplied by alpha/rank, with rsLora by alpha/sqrt(rank).",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the added matrices.")
    target_modules: str = Field(
        default="all-linear",
        min_length=1,
        max_length=512,
        description="all-linear, or the module names to adapt, separated by commas.",
    )
    rs_lora: bool = Field(default=False, description="Rank-stabilized scale, for ranks of 64 and more.")
    dora: bool = Field(
        default=False, description="Weight-decomposed adaptation: a trained magnitude beside the direction; slower."
    )


class Adapter(Model):
    """Train an adapter instead of all weights."""

    lora: Lora | None = Field(
        default=None, description="Low-rank adaptation; absent: its defaults, or those of the initial adapter."
    )
    initial: Input | None = Field(
        default=None, description="An adapter to go on from, as export.merge: false publishes it; absent: a new one."
    )
    quantization: Literal["nf4", "int8"] | None = Field(
        default=None,
        description="Number format of the frozen base model: nf4 is QLoRA's, with double quantization; absent: "
        "training.precision.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.lora) || !has(self.initial)",
            check=lambda self: self.lora is None or self.initial is None,
            message="set lora for a new adapter or initial to go on from one, not both; an adapter keeps its shape",
        ),
    )


class Export(Model):
    """What the artifact holds."""

    merge: bool = Field(
        default=True,
        description="With an adapter: publish the whole model with the adapter merged in; false publishes the adapter "
        "alone.",
    )
