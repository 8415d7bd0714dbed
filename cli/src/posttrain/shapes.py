"""Which shape a model has: from its folder, from a table of well-known models, or from a number of parameters."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from posttrain_contract.shape import ModelShape
from posttrain_operator.api.quantities import to_amount

_LLAMA_2_7B = ModelShape(layers=32, hidden=4096, heads=32, key_value_heads=32, intermediate=11_008, vocabulary=32_000)
_LLAMA_2_13B = ModelShape(layers=40, hidden=5120, heads=40, key_value_heads=40, intermediate=13_824, vocabulary=32_000)
_LLAMA_3_8B = ModelShape(layers=32, hidden=4096, heads=32, key_value_heads=8, intermediate=14_336, vocabulary=128_256)
_LLAMA_3_70B = ModelShape(layers=80, hidden=8192, heads=64, key_value_heads=8, intermediate=28_672, vocabulary=128_256)
_KNOWN: Final[Mapping[str, ModelShape]] = MappingProxyType(
    {
        r"meta-llama/Llama-2-7b(-chat)?-hf": _LLAMA_2_7B,
        r"meta-llama/Llama-2-13b(-chat)?-hf": _LLAMA_2_13B,
        r"meta-llama/Llama-2-70b(-chat)?-hf": replace(_LLAMA_3_70B, vocabulary=32_000),
        r"meta-llama/(Meta-)?Llama-3(\.1)?-8B(-Instruct)?": _LLAMA_3_8B,
        r"meta-llama/(Meta-)?Llama-3(\.[13])?-70B(-Instruct)?": _LLAMA_3_70B,
        r"llm-jp/llm-jp-3(\.1)?-13b(-instruct\w*)?": replace(_LLAMA_2_13B, vocabulary=99_584),
        r"llm-jp/llm-jp-4-8b-(base|instruct|thinking)": replace(_LLAMA_3_8B, vocabulary=196_608),
        r"Qwen/Qwen3-8B(-Base)?": ModelShape(
            layers=36, hidden=4096, heads=32, key_value_heads=8, intermediate=12_288, vocabulary=151_936
        ),
        r"Qwen/Qwen3-32B": ModelShape(
            layers=64,
            hidden=5120,
            heads=64,
            key_value_heads=8,
            intermediate=25_600,
            vocabulary=151_936,
            head_size=128,
        ),
    }
)
"""Shapes by the repository's name, from each repository's config.json; for llm-jp from the model cards."""


def shape_in(folder: Path) -> ModelShape | None:
    """The shape of the model in a folder; None where it has no ``config.json``.

    Raises ``ValueError`` for one that cannot be used.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - the same as what the model's shape raises
    return ModelShape.from_config(config)


def known_shape(uri: str) -> ModelShape | None:
    """The shape of a well-known model by its ``hf://`` URI; None for others."""
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(@[^/]+)?", uri)
    if match is None:
        return None
    return next((shape for name, shape in _KNOWN.items() if re.fullmatch(name, match[1])), None)


def typical_shape(parameters: float) -> ModelShape:
    """A model of this size: the well-known one that is nearest, with more or fewer layers."""
    nearest = min(_KNOWN.values(), key=lambda shape: abs(shape.parameters - parameters))
    return replace(nearest, layers=max(1, round((parameters - nearest.outside) / nearest.layer)))


def to_parameters(text: str) -> float:
    """The number in 8B or 350M. Raises ``ValueError``."""
    amount = to_amount(text.upper().replace("B", "G"))
    if amount is None or amount < 1_000_000:
        raise ValueError(f"expected a number of parameters, such as 8B, found {text!r}")
    return float(amount)
