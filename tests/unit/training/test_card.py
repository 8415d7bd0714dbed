"""The card of a trained model: all that it says, and what it says only where that is known."""

from typing import Any

import pytest
import yaml
from posttrain_contract.artifact import InputEntry
from posttrain_training.card import Card, hub_model

FACTS: dict[str, Any] = {
    "name": "math-sft",
    "library": "transformers",
    "base_model": "acme/base",
    "tags": ("sft", "lora", "nf4"),
    "settings": {"run": "`team/FineTuneJob/math-sft`", "method": "sft", "rows": "1,024"},
    "inputs": {
        "dataset": InputEntry(uri="pvc://store/team/filterjob/hard-0/artifact", digest="d" * 64),
        "model": InputEntry(uri="hf://acme/base@0123abc"),
    },
    "figures": {"firstLoss": 2.5, "loss": 0.123456789, "exactMatch": 0.5},
    "versions": {"torch": "2.13.0", "trl": "1.16.0"},
}
GOLDEN = f"""\
---
library_name: "transformers"
pipeline_tag: "text-generation"
base_model: "acme/base"
tags: ["posttrain", "sft", "lora", "nf4"]
---

# math-sft

Trained with posttrain.

## Training

| setting | value |
| --- | --- |
| run | `team/FineTuneJob/math-sft` |
| method | sft |
| rows | 1,024 |

## Made from

| what | where | SHA-256 of the artifact |
| --- | --- | --- |
| dataset | `pvc://store/team/filterjob/hard-0/artifact` | `{"d" * 64}` |
| model | `hf://acme/base@0123abc` |  |

## Figures of the run that made it

| figure | value |
| --- | --- |
| firstLoss | 2.5 |
| loss | 0.123457 |
| exactMatch | 0.5 |

## Libraries

| library | version |
| --- | --- |
| torch | 2.13.0 |
| trl | 1.16.0 |
"""


def test_the_whole_card() -> None:
    assert Card(**FACTS).text() == GOLDEN


def test_a_base_that_is_not_on_the_hub_is_not_named_as_if_it_were() -> None:
    text = Card(**{**FACTS, "base_model": None, "library": "peft"}).text()
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["posttrain", "sft", "lora", "nf4"],
    }


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("hf://acme/base", "acme/base"),
        ("hf://acme/base@main", "acme/base"),
        ("pvc://models/acme/base", None),
        ("file:///acme/base", None),
    ],
)
def test_the_name_on_the_hub_is_known_of_what_was_read_from_there(uri: str, name: str | None) -> None:
    assert hub_model(uri) == name
