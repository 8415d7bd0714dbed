"""Learning from pairs of a better and a worse answer."""

from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule

DpoLoss = Literal["sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "apo_zero", "apo_down", "sigmoid_norm"]
"""Losses by the names that TRL gives them."""


class Dpo(Model):
    """Direct preference optimization.

    The reference is the model as it was before: with a new adapter the model without it, with an initial one the model
    with a frozen copy of it. With all weights its log-probabilities are computed before the first step; for that alone
    fsdp2 loads a second model.
    """

    beta: float = Field(
        default=0.1, gt=0, le=100, description="How far the model may move from the reference; larger: less far."
    )
    loss: DpoLoss = Field(default="sigmoid", description="sigmoid is the loss of the DPO paper.")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Probability that a pair is the wrong way round; for robust, and above 0 for exo_pair (its paper "
        "takes 0.001).",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.labelSmoothing) || self.labelSmoothing == 0.0"
            " || (has(self.loss) && self.loss in ['robust', 'exo_pair'])",
            check=lambda self: self.label_smoothing == 0 or self.loss in ("robust", "exo_pair"),
            message="labelSmoothing belongs to loss: robust or exo_pair; the others have no such term",
        ),
        Rule(
            cel="!has(self.loss) || self.loss != 'exo_pair' || (has(self.labelSmoothing) && self.labelSmoothing > 0.0)",
            check=lambda self: self.loss != "exo_pair" or self.label_smoothing > 0,
            message="loss: exo_pair needs a labelSmoothing above 0, such as 0.001",
        ),
    )
