"""What a FineTuneJob says, in the words of TRL: each value arrives, and the library knows each name."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.preference import DpoLoss
from posttrain_contract.training import Optimizer, Training
from posttrain_finetune.arguments import dpo_arguments, lora_arguments, sft_arguments
from posttrain_training.arguments import SCHEDULERS
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames
from trl import DPOConfig, SFTConfig

URI = {"uri": "pvc://data/any"}
OUTPUT = Path("checkpoints")


def sft(**spec: Any) -> dict[str, Any]:
    """The arguments of a demonstration job with these parts."""
    parsed = FineTuneSpec.parse({"model": URI, "dataset": URI, **spec})
    return sft_arguments(parsed, output=OUTPUT, on_cpu=True)


def dpo(**spec: Any) -> dict[str, Any]:
    """The arguments of a preference job with these parts."""
    dataset = {**URI, "format": "preference"}
    parsed = FineTuneSpec.parse({"method": "dpo", "model": URI, "dataset": dataset, **spec})
    return dpo_arguments(parsed, output=OUTPUT, on_cpu=True)


TABLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"num_train_epochs": 1.0, "max_steps": -1, "learning_rate": 2e-5, "warmup_steps": 0, "max_grad_norm": 1.0}),
    ({"epochs": 3}, {"num_train_epochs": 3, "max_steps": -1}),
    ({"maxSteps": 7}, {"max_steps": 7}),
    ({"batchSize": 2, "gradientAccumulation": 4}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
    ({"learningRate": 3e-4, "weightDecay": 0.1}, {"learning_rate": 3e-4, "weight_decay": 0.1}),
    ({"maxGradientNorm": 0.3}, {"max_grad_norm": 0.3}),
    ({"warmupSteps": 20}, {"warmup_steps": 20}),
    ({"warmupRatio": 0.03}, {"warmup_steps": 0.03}),
    ({"minLearningRateRatio": 0.1}, {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
    ({"scheduler": "linear"}, {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {}}),
    ({"neftuneAlpha": 5}, {"neftune_noise_alpha": 5}),
    ({"neftuneAlpha": None}, {"neftune_noise_alpha": None}),
    ({"precision": "bf16"}, {"bf16": True}),
    ({"precision": "fp32"}, {"bf16": False}),
    ({"packing": True}, {"padding_free": True}),
    ({"gradientCheckpointing": "off"}, {"activation_checkpointing": False, "activation_checkpointing_kwargs": None}),
    ({"gradientCheckpointing": "full"}, {"activation_checkpointing": True, "activation_checkpointing_kwargs": None}),
    (
        {"gradientCheckpointing": "selective"},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"selective": True}},
    ),
    ({"seed": 5}, {"seed": 5}),
]


@pytest.mark.parametrize(("training", "told"), TABLE, ids=[str(training) for training, _ in TABLE])
def test_what_training_says_is_what_the_trainer_is_told(training: dict[str, Any], told: dict[str, Any]) -> None:
    given = {name: value for name, value in training.items() if value is not None}
    arguments = sft(training=given)
    assert {name: arguments[name] for name in told} == told
    SFTConfig(**arguments)


def test_checkpoints_are_saved_as_often_as_told() -> None:
    arguments = sft(checkpoints={"everySteps": 50, "keep": 1})
    assert (arguments["save_strategy"], arguments["save_steps"]) == ("steps", 50)
    assert arguments["save_total_limit"] is None, "we rotate them, once they are whole"


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_is_one_that_the_library_knows(name: str) -> None:
    arguments = sft(training={"optimizer": name})
    assert arguments["optim"] == name == OptimizerNames(name).value
    assert SFTConfig(**arguments).optim == OptimizerNames(name)


CURVES: dict[str, dict[int, float]] = {
    "constant": {5: 0.5, 10: 1, 40: 1, 100: 1},
    "linear": {5: 0.5, 10: 1, 55: 0.5, 100: 0},
    "cosine": {5: 0.5, 10: 1, 55: 0.6, 100: 0.2},
    "inverse_sqrt": {5: 0.5, 10: 1, 40: 0.5},
}
"""The share of the peak at some of 100 steps, of which 10 are warm-up; cosine ends at a fifth."""


def test_every_scheduler_of_the_contract_is_tried() -> None:
    assert set(CURVES) == set(SCHEDULERS) == set(get_args(Training.model_fields["scheduler"].annotation))


@pytest.mark.parametrize("name", CURVES)
def test_every_scheduler_has_its_curve_in_the_library(name: str) -> None:
    ratio = {"minLearningRateRatio": 0.2} if name == "cosine" else {}
    arguments = SFTConfig(**sft(training={"scheduler": name, "warmupSteps": 10, **ratio}))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    scheduler = get_scheduler(
        SchedulerType(arguments.lr_scheduler_type),
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(100),
        num_training_steps=100,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    rates = []
    for _ in range(101):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert {step: rates[step] for step in CURVES[name]} == pytest.approx(CURVES[name], abs=1e-6)


@pytest.mark.parametrize(("training", "steps"), [({"warmupSteps": 7}, 7), ({"warmupRatio": 0.03}, 6), ({}, 0)])
def test_the_warm_up_is_a_number_of_steps_or_a_share_of_all(training: dict[str, Any], steps: int) -> None:
    assert SFTConfig(**sft(training=training)).get_warmup_steps(200) == steps


@pytest.mark.parametrize("loss", get_args(DpoLoss))
def test_every_loss_of_preferences_is_told_by_its_name(loss: str) -> None:
    smoothing = {"labelSmoothing": 0.01} if loss in ("robust", "exo_pair") else {}
    arguments = dpo(dpo={"loss": loss, "beta": 0.3, **smoothing}, training={"maxLength": 99})
    told = {name: arguments[name] for name in ("loss_type", "beta", "label_smoothing", "max_length")}
    assert told == {"loss_type": [loss], "beta": 0.3, "label_smoothing": 0.01 if smoothing else 0, "max_length": 99}
    DPOConfig(**arguments)


@pytest.mark.parametrize(("adapter", "computed_before"), [(None, True), ({}, False)])
def test_only_without_an_adapter_is_the_reference_computed_before(adapter: Any, computed_before: bool) -> None:
    arguments = dpo(**({} if adapter is None else {"adapter": adapter}))
    assert arguments["precompute_ref_log_probs"] is computed_before


def test_an_adapter_has_the_shape_that_was_told() -> None:
    lora = {"rank": 4, "alpha": 9, "dropout": 0.1, "rsLora": True, "dora": True, "targetModules": "q_proj, v_proj"}
    adapter = FineTuneSpec.parse({"model": URI, "dataset": URI, "adapter": {"lora": lora}}).adapter
    assert adapter is not None
    assert adapter.lora is not None
    assert lora_arguments(adapter.lora) == {
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 9,
        "lora_dropout": 0.1,
        "use_rslora": True,
        "use_dora": True,
        "target_modules": ["q_proj", "v_proj"],
    }
