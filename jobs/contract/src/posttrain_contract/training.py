"""What the two training stages (fine-tuning and reinforcement learning) are told alike."""

from typing import Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import AnswerFormat, TaskDataset

EVALUATION_INPUT = "evaluation.generate.dataset"
"""Name of the held-out tasks among the inputs of a run."""


class Training(Model):
    """The optimization: how long, how fast, how much at once. AdamW, decoupled weight decay 0."""

    epochs: float = Field(default=1.0, gt=0, le=1000, description="Passes over the dataset, unless maxSteps is set.")
    max_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Optimizer steps; wins over epochs. Absent: epochs count."
    )
    batch_size: int = Field(default=8, ge=1, le=65_536, description="Rows in one forward pass of one process.")
    gradient_accumulation: int = Field(
        default=1, ge=1, le=65_536, description="Forward passes whose gradients make one optimizer step."
    )
    learning_rate: float = Field(default=2e-5, gt=0, le=1, description="Peak learning rate.")
    scheduler: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="Learning rate after the warm-up; linear and cosine end at 0."
    )
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000, description="Steps of linear rise to the learning rate.")
    max_gradient_norm: float = Field(default=1.0, gt=0, le=1e6, description="Gradients are clipped to this 2-norm.")
    precision: Literal["fp32", "bf16"] = Field(default="bf16", description="Number format of weights and computation.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of shuffling, dropout and sampling.")


class SftTraining(Training):
    """The optimization of supervised fine-tuning."""

    max_length: int = Field(default=1024, ge=8, le=1_048_576, description="Tokens of one row; longer rows are cut.")


class Lora(Model):
    """Low-rank adaptation: the base model is frozen, small matrices beside its linear layers are trained."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the added matrices.")
    alpha: int = Field(default=32, ge=1, le=4096, description="Scale: the added product is multiplied by alpha/rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the added matrices.")
    target_modules: str = Field(
        default="all-linear",
        min_length=1,
        max_length=512,
        description="all-linear, or the module names to adapt, separated by commas.",
    )


class Adapter(Model):
    """Train an adapter instead of all weights."""

    lora: Lora = Field(default=Lora(), description="Low-rank adaptation.")


class Export(Model):
    """What the artifact holds."""

    merge: bool = Field(
        default=True,
        description="With an adapter: publish the whole model with the adapter merged in; false publishes the adapter "
        "alone.",
    )


class Distributed(Model):
    """Data-parallel training over processes and nodes (DDP)."""

    nodes: int = Field(default=1, ge=1, le=1024, description="Pods, one a node.")
    processes_per_node: int = Field(
        default=1, ge=1, le=64, description="Training processes a pod; with GPUs one for each GPU."
    )


class Checkpoints(Model):
    """When training state is saved, so that the next attempt goes on from there."""

    every_steps: int = Field(default=500, ge=1, le=10_000_000, description="Optimizer steps between checkpoints.")
    keep: int = Field(default=2, ge=1, le=100, description="Newest complete checkpoints that are kept.")


class GenerationEvaluation(Model):
    """Greedy generation on held-out tasks, scored by exact match of the final answer."""

    dataset: TaskDataset = Field(description="The held-out tasks.")
    max_new_tokens: int = Field(default=512, ge=1, le=131_072, description="Longest answer, in tokens.")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Tasks generated at once.")
    answer: AnswerFormat = Field(default="gsm8k", description="How the final answer is found in the text.")


class Evaluation(Model):
    """Evaluation before the first step, after the last one and, when everySteps is set, in between."""

    every_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Optimizer steps between evaluations; absent: first and last."
    )
    generate: GenerationEvaluation = Field(description="Evaluation by generation.")


BATCH_OF_GROUPS = Rule(
    cel="(has(self.training) && has(self.training.batchSize) ? self.training.batchSize : 8)"
    " * (has(self.training) && has(self.training.gradientAccumulation) ? self.training.gradientAccumulation : 1)"
    " % (has(self.grpo) && has(self.grpo.groupSize) ? self.grpo.groupSize : 8) == 0",
    check=lambda self: self.training.batch_size * self.training.gradient_accumulation % self.grpo.group_size == 0,
    message="training.batchSize x training.gradientAccumulation must be a multiple of grpo.groupSize",
)
"""GRPO compares the completions of one prompt, so a step holds whole groups."""
