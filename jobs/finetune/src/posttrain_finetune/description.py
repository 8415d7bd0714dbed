"""What the model's card says of a fine-tuning."""

from pathlib import Path

from posttrain_contract.adapter import Adapter, Lora
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.preference import Dpo
from posttrain_runtime.store import read_manifest
from posttrain_training.card import Description

from posttrain_finetune.data import Rows


def described(spec: FineTuneSpec, rows: Rows) -> Description:
    """The method and the settings that decide what a model of this kind becomes."""
    adapter = spec.adapter
    quantization = adapter.quantization if adapter else None
    settings = {
        "trained": "all weights" if adapter is None else _adapter_words(adapter, merged=spec.export.merge),
        "quantization of the base": quantization,
        "preference loss": _preference(spec),
        **_rows_words("rows", rows.train, packed=spec.training.packing),
        **({} if rows.validation is None else _rows_words("validation rows", rows.validation)),
        "longest row": f"{spec.training.max_length} tokens",
        "template": spec.dataset.template,
        "learned": spec.dataset.loss,
    }
    tags = (spec.method, "lora" if adapter else None, quantization)
    return Description(
        tags=tuple(tag for tag in tags if tag is not None),
        settings={name: value for name, value in settings.items() if value is not None},
    )


def _adapter_words(adapter: Adapter, *, merged: bool) -> str:
    end = "merged into the model" if merged else "published alone"
    if adapter.initial is not None:
        return f"the initial adapter further, {end}"
    lora = adapter.lora or Lora()
    kinds = " ".join(name for name, on in (("rank-stabilized", lora.rs_lora), ("DoRA", lora.dora)) if on)
    return f"{kinds or 'LoRA'} of rank {lora.rank}, alpha {lora.alpha}, on {lora.target_modules}, {end}"


def _preference(spec: FineTuneSpec) -> str | None:
    if spec.method != "dpo":
        return None
    dpo = spec.dpo or Dpo()
    return f"{dpo.loss}, beta {dpo.beta:g}"


def _rows_words(name: str, prepared: Path, *, packed: bool = False) -> dict[str, str]:
    """How many rows a prepared dataset has, and its key."""
    manifest = read_manifest(prepared.parent)
    count = "" if manifest is None or manifest.rows is None else f"{manifest.rows:,}"
    return {name: f"{count} packed ones" if packed else count, f"{name}, prepared": f"`{prepared.parent.name}`"}
