"""Group relative policy optimization with TRL; completions come from the rollout servers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import datasets
import trl.generation.vllm_generation
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.metrics import FIRST_REWARD, REWARD
from posttrain_contract.rl import RLSpec
from posttrain_contract.stage import RLStage
from posttrain_runtime import keys
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.ranks import RankOutcome
from posttrain_runtime.telemetry import pod_ip
from posttrain_training.card import Description
from posttrain_training.evaluation import end_tokens
from posttrain_training.history import History
from posttrain_training.models import load_model, quiet
from posttrain_training.session import Session
from posttrain_training.tasks import Task
from posttrain_training.tokenizers import load_tokenizer
from trl import GRPOConfig, GRPOTrainer

from posttrain_rl.arguments import grpo_arguments
from posttrain_rl.client import RolloutClient
from posttrain_rl.rewards import GOLD, reward_functions
from posttrain_rl.servers import Server, wait_until_healthy

_LOGP_DIFFERENCE = "samplingLogpDifference"
_FIGURES = {
    "reward": REWARD,
    "reward_std": "rewardStd",
    "entropy": "entropy",
    "completions/mean_length": "completionTokens",
    "completions/clipped_ratio": "truncatedShare",
    "sampling/sampling_logp_difference/mean": _LOGP_DIFFERENCE,
}
_RECENT_STEPS = 10


def train(context: StageContext[RLStage], tasks: list[Task]) -> RankOutcome:
    """Runs the training on tasks to its end. Raises ``StageError`` and ``Preempted``."""
    quiet()
    spec = context.config.spec
    context.progress.update("loading model")
    tokenizer = load_tokenizer(context.input_path("model"))
    rows = _rows(tasks, context, tokenizer)
    arguments = GRPOConfig(
        **grpo_arguments(spec, output=context.folder / layout.CHECKPOINTS, on_cpu=context.config.run.gpus == 0)
    )
    session = Session(context, device=arguments.device, tokenizer=tokenizer)
    model = load_model(context.input_path("model"), spec.training)
    client = _connect(context)
    trainer = TRAINERS[spec.algorithm](context, arguments, client, model=model, tokenizer=tokenizer, rows=rows)
    step = session.run(trainer, figures=_FIGURES, extra=lambda: {"weightVersion": client.version})
    history = History(context.folder)
    metrics = {
        **session.metrics(step=step),
        FIRST_REWARD: history.first(REWARD),
        REWARD: history.recent_mean(REWARD, count=_RECENT_STEPS),
        _LOGP_DIFFERENCE: history.largest(_LOGP_DIFFERENCE),
        "weightVersion": history.largest("weightVersion"),
    }
    return session.finish(trainer.model, step=step, metrics=metrics, description=_described(spec, tasks=len(tasks)))


def _described(spec: RLSpec, *, tasks: int) -> Description:
    """What the model's card says of the method."""
    rewards = ", ".join(reward.name for reward in spec.rewards)
    settings = {"rewards": rewards, "group size": str(spec.grpo.group_size), "tasks": f"{tasks:,}"}
    return Description(tags=(spec.algorithm,), settings=settings)


def _rows(tasks: list[Task], context: StageContext[RLStage], tokenizer: Any) -> list[dict[str, Any]]:
    """The tasks as TRL reads them. Raises ``StageError`` (DATA) for a prompt that leaves no room for a completion."""
    rollout = context.config.spec.rollout
    room = rollout.max_model_length - rollout.sampling.max_new_tokens
    conversations = [[{"role": "user", "content": task.prompt}] for task in tasks]
    tokenized = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, return_dict=True)["input_ids"]
    for number, tokens in enumerate(tokenized, start=1):
        if len(tokens) > room:
            raise StageError(
                ExitCode.DATA,
                "PromptTooLong",
                f"spec.dataset: the prompt of row {number} has {len(tokens)} tokens, {room} fit beside a completion; "
                "raise rollout.maxModelLength, lower rollout.sampling.maxNewTokens or drop the row",
            )
    return [{"prompt": prompt, GOLD: task.answer} for prompt, task in zip(conversations, tasks, strict=True)]


def _connect(context: StageContext[RLStage]) -> RolloutClient:
    key = keys.server_key(context.folder)
    servers = [Server(host, key=key) for host in context.config.servers]
    wait_until_healthy(servers, progress=context.progress, stop=context.stop)
    return RolloutClient(servers, address=pod_ip(), seed=context.config.spec.training.seed)


def _grpo_trainer(
    context: StageContext[RLStage],
    arguments: GRPOConfig,
    client: RolloutClient,
    *,
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
) -> GRPOTrainer:
    # The one seam: TRL makes its client by this name and offers no other way to bring our own.
    trl.generation.vllm_generation.VLLMClient = lambda **_: client
    trainer = GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=reward_functions(context.config.spec.rewards, end_tokens=end_tokens(model, tokenizer)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    client.step = lambda: trainer.state.global_step
    return trainer


TRAINERS: Mapping[str, Callable[..., GRPOTrainer]] = MappingProxyType({"grpo": _grpo_trainer})
"""What makes the trainer of each ``spec.algorithm``, with the arguments of ``_grpo_trainer``."""
