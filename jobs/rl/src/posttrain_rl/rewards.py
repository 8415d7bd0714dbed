"""Reward functions in the form that TRL calls."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from posttrain_contract.rl import Reward
from posttrain_runtime import answers

RewardFunction = Callable[..., list[float]]
GOLD = "gold"
"""The column with the gold answer in the training data."""


def reward_functions(rewards: Sequence[Reward], *, end_tokens: Collection[int]) -> list[RewardFunction]:
    """One function for each reward, in order; ``end_tokens`` are the tokens that end a completion."""
    return [_KINDS[reward.name](reward, end_tokens) for reward in rewards]


def _exact_match(reward: Reward, end_tokens: Collection[int]) -> RewardFunction:
    reader = answers.reader(reward.answer, reward.pattern)

    def exact_match(
        *, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], gold: Sequence[str], **_: object
    ) -> list[float]:
        """1 for each completion that came to its end with the gold answer, else 0."""
        return [
            float(bool(ids) and ids[-1] in end_tokens and reader.matches(completion[0]["content"], answer))
            for completion, ids, answer in zip(completions, completion_ids, gold, strict=True)
        ]

    return exact_match


_KINDS = {"exact-match": _exact_match}
