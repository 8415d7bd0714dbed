"""Where a training run's figures go beside its own history."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule

_NAME = r"^[^/\\#?%:]+$"
"""W&B makes URLs of names."""
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class Wandb(Model):
    """Weights & Biases: one run for one object, over all its attempts."""

    entity: str | None = Field(
        default=None,
        pattern=_NAME,
        max_length=128,
        description="User or team that the project belongs to; absent: the API key's own.",
    )
    project: str = Field(pattern=_NAME, max_length=128, description="Project; it is made when it does not exist.")
    run: str | None = Field(
        default=None, pattern=_NAME, max_length=128, description="Name of the run; absent: the object's name."
    )
    group: str | None = Field(
        default=None, pattern=_NAME, max_length=128, description="Group of runs that are compared; absent: none."
    )
    tags: tuple[Tag, ...] = Field(default=(), max_length=32, description="Tags of the run.")
    mode: Literal["online", "offline"] = Field(
        default="online",
        description="online: sent while training, with the key of run.secrets.wandb; offline: written into the run "
        "folder's logs/wandb, for `wandb sync`.",
    )


class Tracking(Model):
    """Copies of the figures for other tools. Losing them is told and never fails or delays the training."""

    wandb: Wandb | None = Field(default=None, description="Weights & Biases; absent: nothing is sent there.")
    tensorboard: bool = Field(default=False, description="Write event files into the run folder's logs/tensorboard.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.wandb) || (has(self.tensorboard) && self.tensorboard)",
            check=lambda self: self.wandb is not None or self.tensorboard,
            message="set wandb, tensorboard: true or both; leave tracking out to track nowhere",
        ),
    )
