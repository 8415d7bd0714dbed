"""The README.md of a trained model: what was done, how, and what it was made from."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from posttrain_contract.artifact import InputEntry
from posttrain_contract.hub import SCHEME, HubAddress
from posttrain_contract.metrics import (
    EXACT_MATCH,
    EXACT_MATCH_BEFORE,
    FIRST_LOSS,
    FIRST_REWARD,
    LOSS,
    PERPLEXITY,
    REWARD,
)
from posttrain_contract.stage import FineTuneStage, RLStage
from posttrain_contract.training import Training
from posttrain_runtime import cards
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import world_size

_LIBRARIES: Final = ("torch", "transformers", "trl", "peft")
_FIGURES: Final = (
    "bestStep",
    FIRST_LOSS,
    LOSS,
    "perplexityBefore",
    PERPLEXITY,
    EXACT_MATCH_BEFORE,
    EXACT_MATCH,
    FIRST_REWARD,
    REWARD,
)
"""What was learned. Speeds are no property of a model: they differ each time that the same one is made."""


@dataclass(frozen=True)
class Description:
    """What a stage says of its training beside what every training stage does."""

    tags: tuple[str, ...]
    """The method first."""
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Card:
    """All that a card says."""

    name: str
    library: str
    base_model: str | None
    """The base's name on the Hub, where it was read from there."""
    tags: tuple[str, ...]
    settings: Mapping[str, str]
    inputs: Mapping[str, InputEntry]
    figures: Mapping[str, float]
    versions: Mapping[str, str]

    def text(self) -> str:
        """The whole file: metadata that the Hub reads, and a section for each thing to say."""
        front = {
            "library_name": self.library,
            "pipeline_tag": "text-generation",
            "base_model": self.base_model,
            "tags": ["posttrain", *self.tags],
        }
        # JSON values are YAML ones.
        head = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items() if value]
        lines = [
            "---", *head, "---", "",
            f"# {self.name}", "",
            "Trained with posttrain.", "",
            *cards.table("Training", ("setting", "value"), self.settings.items()),
            *cards.lineage(self.inputs),
            *cards.figures(self.figures),
            *cards.table("Libraries", ("library", "version"), self.versions.items()),
        ]  # fmt: skip
        return "\n".join(lines)


def write_card(
    context: StageContext[FineTuneStage] | StageContext[RLStage],
    description: Description,
    *,
    step: int,
    figures: Mapping[str, float | None],
) -> None:
    """Writes the card of the model that is staged, in place of one that a library may have written."""
    run, folder = context.config.run, context.staging
    card = Card(
        name=run.name,
        library="peft" if (folder / "adapter_config.json").is_file() else "transformers",
        base_model=hub_model(context.input("model").uri),
        tags=description.tags,
        settings={
            "run": f"`{run.id}`",
            "method": description.tags[0],
            **description.settings,
            "steps": str(step),
            **_settings(context.config.spec.training),
        },
        inputs=dict(sorted(context.lineage.items())),
        figures={name: value for name in _FIGURES if (value := figures.get(name)) is not None},
        versions=_versions(),
    )
    (folder / cards.README).write_text(card.text(), encoding="utf-8")


def hub_model(uri: str) -> str | None:
    """The name that a model has on the Hub, when it was read from there."""
    return HubAddress.parse(uri).id if uri.startswith(SCHEME) else None


def _settings(training: Training) -> dict[str, str]:
    rows = training.batch_size * training.gradient_accumulation * world_size()
    return {
        "rows a step": str(rows),
        "learning rate": f"{training.learning_rate:g}, {training.scheduler}",
        "optimizer": training.optimizer,
        "precision": training.precision,
        "seed": str(training.seed),
    }


def _versions() -> dict[str, str]:
    """Of the libraries that are there: not every stage needs all of them."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
