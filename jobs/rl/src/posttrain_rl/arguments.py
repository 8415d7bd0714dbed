"""The contract in the words of TRL. Pure: no ML library is imported here."""

from pathlib import Path
from typing import Any

from posttrain_contract.rl import RLSpec
from posttrain_training.arguments import trainer_arguments


def grpo_arguments(spec: RLSpec, *, output: Path, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments of ``trl.GRPOConfig``; ``output`` is the checkpoint folder.

    Nothing of the servers is said here: the rollout client knows them.
    """
    return {
        **trainer_arguments(spec.training, spec.checkpoints, output=output, on_cpu=on_cpu),
        "num_generations": spec.grpo.group_size,
        "beta": spec.grpo.kl_coefficient,
        "temperature": spec.rollout.sampling.temperature,
        "max_completion_length": spec.rollout.sampling.max_new_tokens,
        "reward_weights": [reward.weight for reward in spec.rewards],
        "use_vllm": True,
        "vllm_mode": "server",
    }
