"""What a fine-tuning that ran out of memory could change."""

import json
from pathlib import Path

from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.fitting import MORE, least_changes, what_would_fit
from posttrain_contract.memory import estimate
from posttrain_contract.shape import ModelShape


def advice(spec: FineTuneSpec, model: Path, *, room: int | None) -> str:
    """The changes that would fit into ``room`` bytes of a GPU, by the estimate of ``posttrain plan``.

    Where that cannot be told, since there is no GPU, no estimate for this model, or it was wrong: what needs less.
    """
    shape = _shape(model)
    needed = None if shape is None else estimate(spec, shape).total
    if room is None or shape is None or needed is None or needed <= room:
        return f"each of these needs less: {'; '.join(least_changes(spec))}"
    known = f"by estimate {_gib(needed)} are needed on a GPU, which has {_gib(room)}"
    found = [change.text for change in what_would_fit(spec, shape, room=room)]
    return f"{known}; it would fit with {'; '.join(found)}" if found else f"{known}; it would fit only with {MORE}"


def _shape(model: Path) -> ModelShape | None:
    try:
        return ModelShape.from_config(json.loads((model / "config.json").read_bytes()))
    except (OSError, ValueError):
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
