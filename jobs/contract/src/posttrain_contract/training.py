"""What the two training stages (fine-tuning and reinforcement learning) are told alike."""

from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule

Optimizer = Literal["adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor", "sgd"]
"""Optimizers by the names that transformers gives them."""
Attention = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"]
"""Attention implementations by the names that transformers gives them."""


class Training(Model):
    """The optimization: how long, how fast, how much at once."""

    epochs: float = Field(default=1.0, gt=0, le=1000, description="Passes over the dataset, unless maxSteps is set.")
    max_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Optimizer steps; wins over epochs. Absent: epochs count."
    )
    batch_size: int = Field(default=8, ge=1, le=65_536, description="Rows in one forward pass of one process.")
    gradient_accumulation: int = Field(
        default=1, ge=1, le=65_536, description="Forward passes whose gradients make one optimizer step."
    )
    learning_rate: float = Field(default=2e-5, gt=0, le=1, description="Peak learning rate.")
    scheduler: Literal["constant", "linear", "cosine", "inverse_sqrt"] = Field(
        default="cosine",
        description="Learning rate after the warm-up; linear ends at 0, cosine at minLearningRateRatio of the peak.",
    )
    min_learning_rate_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the peak at which cosine ends."
    )
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000, description="Steps of linear rise to the learning rate.")
    warmup_ratio: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The same as a share of all steps, such as 0.03; absent: warmupSteps counts.",
    )
    optimizer: Optimizer = Field(
        default="adamw_torch_fused",
        description="The 8-bit ones keep their moments in 8 bits; paged: in CPU memory when the GPU's is short.",
    )
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="Decoupled weight decay.")
    max_gradient_norm: float = Field(default=1.0, gt=0, le=1e6, description="Gradients are clipped to this 2-norm.")
    precision: Literal["fp32", "bf16"] = Field(default="bf16", description="Number format of weights and computation.")
    attention: Attention = Field(
        default="sdpa", description="Attention implementation; the flash ones want a GPU and an image that has them."
    )
    gradient_checkpointing: Literal["off", "selective", "full"] = Field(
        default="off",
        description="full: activations are computed again in the backward pass, which saves memory and costs a third "
        "of the speed; selective (SFT): all but those of attention.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of shuffling, dropout and sampling.")
    stall_timeout: int = Field(
        default=1800,
        ge=60,
        le=604_800,
        description="Seconds that loading, saving, evaluating or one of the first steps may take without a sign of "
        "life; then the processes count as hung and another attempt starts. Later steps: ten times their median, at "
        "least a minute; where rollout servers answer, at least this long.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.minLearningRateRatio) || self.minLearningRateRatio == 0.0"
            " || !has(self.scheduler) || self.scheduler == 'cosine'",
            check=lambda self: self.min_learning_rate_ratio == 0 or self.scheduler == "cosine",
            message="minLearningRateRatio belongs to scheduler: cosine",
        ),
        Rule(
            cel="!has(self.warmupRatio) || !has(self.warmupSteps) || self.warmupSteps == 0",
            check=lambda self: self.warmup_ratio is None or self.warmup_steps == 0,
            message="set warmupSteps or warmupRatio, not both",
        ),
    )


class Checkpoints(Model):
    """When training state is saved, so that the next attempt goes on from there."""

    every_steps: int = Field(default=500, ge=1, le=10_000_000, description="Optimizer steps between checkpoints.")
    keep: int = Field(default=2, ge=1, le=100, description="Newest complete checkpoints that are kept.")


BATCH_OF_GROUPS = Rule(
    cel="(has(self.training) && has(self.training.batchSize) ? self.training.batchSize : 8)"
    " * (has(self.training) && has(self.training.gradientAccumulation) ? self.training.gradientAccumulation : 1)"
    " % (has(self.grpo) && has(self.grpo.groupSize) ? self.grpo.groupSize : 8) == 0",
    check=lambda self: self.training.batch_size * self.training.gradient_accumulation % self.grpo.group_size == 0,
    message="training.batchSize x training.gradientAccumulation must be a multiple of grpo.groupSize",
)
"""GRPO compares the completions of one prompt, so a step holds whole groups."""
