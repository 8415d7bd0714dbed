"""What an RLJob can be told: improve a model by rewards for what it generates."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule
from posttrain_contract.evaluation import EVALUATION_INPUT, Evaluation
from posttrain_contract.inputs import (
    ANSWER_DESCRIPTION,
    PATTERN_DESCRIPTION,
    PATTERN_WITH_REGEX,
    AnswerFormat,
    AnswerPattern,
    Input,
    TaskDataset,
)
from posttrain_contract.tracking import Tracking
from posttrain_contract.training import BATCH_OF_GROUPS, Checkpoints, Training


class Reward(Model):
    """One reward function; the reward of a completion is the weighted sum."""

    name: Literal["exact-match"] = Field(
        description="exact-match: 1 when the completion's final answer equals the gold answer, else 0."
    )
    answer: AnswerFormat = Field(default="gsm8k", description=ANSWER_DESCRIPTION)
    pattern: AnswerPattern | None = Field(default=None, description=PATTERN_DESCRIPTION)
    weight: float = Field(default=1.0, ge=-1e6, le=1e6, description="Factor of this reward in the sum.")

    rules: ClassVar[tuple[Rule, ...]] = (PATTERN_WITH_REGEX,)


class Sampling(Model):
    """How completions are drawn while training."""

    temperature: float = Field(default=1.0, gt=0, le=10, description="Softmax temperature.")
    max_new_tokens: int = Field(default=512, ge=1, le=131_072, description="Longest completion, in tokens.")


class Rollout(Model):
    """The vLLM servers that generate completions with the newest weights."""

    replicas: int = Field(default=1, ge=1, le=256, description="Server pods.")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="GPUs (or CPU processes) of one server.")
    max_model_length: int = Field(
        default=2048, ge=16, le=1_048_576, description="Longest prompt and completion together, in tokens."
    )
    max_sequences: int = Field(default=64, ge=1, le=4096, description="Sequences one server works on at once.")
    cache_memory_mi: int = Field(
        default=1024, ge=1, le=1_048_576, description="Key-value cache of one server on CPU, in MiB; unused on GPUs."
    )
    sampling: Sampling = Field(default=Sampling(), description="How completions are drawn.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(has(self.sampling) && has(self.sampling.maxNewTokens) ? self.sampling.maxNewTokens : 512)"
            " < (has(self.maxModelLength) ? self.maxModelLength : 2048)",
            check=lambda self: self.sampling.max_new_tokens < self.max_model_length,
            message="sampling.maxNewTokens must be below maxModelLength, which counts the prompt too",
        ),
    )


class Grpo(Model):
    """Group relative policy optimization: a completion is compared with the others of its prompt."""

    group_size: int = Field(default=8, ge=2, le=1024, description="Completions of one prompt.")
    kl_coefficient: float = Field(
        default=0.0, ge=0, le=100, description="Weight of the distance to the first model; 0 keeps no copy of it."
    )


class RLSpec(Model):
    """Improve a model by rewards for what it generates and publish it as a model artifact."""

    algorithm: Literal["grpo"] = Field(default="grpo", description="grpo: group relative policy optimization.")
    model: Input = Field(
        description="A model artifact or a Hugging Face model folder with tokenizer and chat template."
    )
    dataset: TaskDataset = Field(description="The tasks to solve.")
    rewards: tuple[Reward, ...] = Field(min_length=1, max_length=16, description="What is good.")
    rollout: Rollout = Field(default=Rollout(), description="Generation of completions.")
    grpo: Grpo = Field(default=Grpo(), description="Settings of the algorithm.")
    training: Training = Field(default=Training(), description="The optimization.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="Saving of training state.")
    evaluation: Evaluation | None = Field(default=None, description="Evaluation by generation; absent: none.")
    tracking: Tracking | None = Field(default=None, description="Copies of the figures for other tools; absent: none.")

    rules: ClassVar[tuple[Rule, ...]] = (
        BATCH_OF_GROUPS,
        Rule(
            cel="!has(self.training) || !has(self.training.gradientCheckpointing)"
            " || self.training.gradientCheckpointing != 'selective'",
            check=lambda self: self.training.gradient_checkpointing != "selective",
            message="training.gradientCheckpointing: selective belongs to a FineTuneJob; take full",
        ),
    )

    needs: ClassVar[Mapping[str, ArtifactType]] = {"model": "model", "dataset": "dataset", EVALUATION_INPUT: "dataset"}
    """The type that an artifact must have to be this input; an input that is not here takes any."""

    def inputs(self) -> dict[str, Input]:
        """What this job reads, by the field's path; the names of ``RunFacts.inputs``."""
        held_out = {EVALUATION_INPUT: self.evaluation.generate.dataset} if self.evaluation else {}
        return {"model": self.model, "dataset": self.dataset, **held_out}
