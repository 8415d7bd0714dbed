"""How a model is judged while it is trained."""

from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import (
    ANSWER_DESCRIPTION,
    PATTERN_DESCRIPTION,
    PATTERN_WITH_REGEX,
    AnswerFormat,
    AnswerPattern,
    TaskDataset,
)

EVALUATION_INPUT = "evaluation.generate.dataset"
"""Name of the held-out tasks among the inputs of a run."""
_KEEP_BEST = (
    "Publish the weights of the evaluated step that was best by this figure, the earliest of equal ones, whose "
    "checkpoint is kept beside the newest; absent: the last step's."
)


class GenerationEvaluation(Model):
    """Greedy generation on held-out tasks, scored by exact match of the final answer."""

    dataset: TaskDataset = Field(description="The held-out tasks.")
    max_new_tokens: int = Field(default=512, ge=1, le=131_072, description="Longest answer, in tokens.")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Tasks generated at once.")
    answer: AnswerFormat = Field(default="gsm8k", description=ANSWER_DESCRIPTION)
    pattern: AnswerPattern | None = Field(default=None, description=PATTERN_DESCRIPTION)

    rules: ClassVar[tuple[Rule, ...]] = (PATTERN_WITH_REGEX,)


class _Evaluation(Model):
    """Evaluation before the first step, after the last one and, when everySteps is set, in between."""

    every_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Optimizer steps between evaluations; absent: first and last."
    )


class Evaluation(_Evaluation):
    """Evaluation before the first step, after the last one and, when everySteps is set, in between."""

    generate: GenerationEvaluation = Field(description="Evaluation by generation.")
    keep_best: Literal["exactMatch"] | None = Field(default=None, description=_KEEP_BEST)

    @property
    def perplexity(self) -> bool:
        """Reinforcement learning has no text to be perplexed by."""
        return False


class TuningEvaluation(_Evaluation):
    """Evaluation before the first step, after the last one and, when everySteps is set, in between."""

    generate: GenerationEvaluation | None = Field(
        default=None, description="Evaluation by generation; absent: by perplexity alone."
    )
    perplexity: bool = Field(
        default=False, description="Perplexity of the answers in the validation share of the dataset."
    )
    keep_best: Literal["exactMatch", "perplexity"] | None = Field(default=None, description=_KEEP_BEST)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.generate) || (has(self.perplexity) && self.perplexity)",
            check=lambda self: self.generate is not None or self.perplexity,
            message="set generate, perplexity: true or both; leave evaluation out to evaluate nothing",
        ),
        Rule(
            cel="!has(self.keepBest) || (self.keepBest == 'exactMatch' ? has(self.generate)"
            " : has(self.perplexity) && self.perplexity)",
            check=lambda self: {
                None: True,
                "exactMatch": self.generate is not None,
                "perplexity": self.perplexity,
            }[self.keep_best],
            message="keepBest: exactMatch needs generate, and keepBest: perplexity needs perplexity: true",
        ),
    )
