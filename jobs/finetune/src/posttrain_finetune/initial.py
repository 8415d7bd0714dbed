"""Looking at an adapter to go on from, beside its base model, by their headers alone: no weight is read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from posttrain_contract.adapter import ADAPTER_INPUT
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import shown_name
from safetensors import SafetensorError, safe_open

Shapes = Mapping[str, tuple[int, ...]]

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
"""How PEFT begins the names of what an adapter adds."""


def check_adapter_folder(folder: Path, *, base: Path) -> None:
    """Raises ``StageError`` (MODEL) for a folder without an adapter that can be read, or with that of another model."""
    name = shown_name(folder)
    if not (folder / _CONFIG).is_file():
        raise adapter_error(f"{name} has no {_CONFIG}; name an adapter that export.merge: false published")
    if not isinstance(_config(folder).get("peft_type"), str):
        raise adapter_error(f"{_CONFIG} of {name} is no JSON object that says its peft_type; copy the folder anew")
    if not (folder / _WEIGHTS).is_file():
        raise adapter_error(f"{name} has no {_WEIGHTS}; publish or copy the adapter anew")
    try:
        adapter = _shapes(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise adapter_error(f"{_WEIGHTS} of {name} cannot be read ({error}); copy the folder anew") from error
    for module, sizes, wanted in _misfits(adapter, _base_shapes(base)):
        raise adapter_error(
            f"the adapter in {name} is for a module {module} of {sizes}, and that of spec.model has {wanted}; name "
            "the model it was trained on"
        )


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _misfits(adapter: Shapes, base: Shapes) -> Iterator[tuple[str, str, str]]:
    """Modules whose low-rank matrices are not as wide as the weight beside them; those of other names are left out."""
    for name, (_, inputs) in ((name, shape) for name, shape in adapter.items() if len(shape) == 2):
        module, mark, _ = name.removeprefix(_PREFIX).partition(".lora_A.")
        weight, outputs = base.get(f"{module}.weight"), adapter.get(name.replace(".lora_A.", ".lora_B."), (0,))[0]
        if mark and weight is not None and sorted(weight) != sorted((inputs, outputs)):
            yield module, f"{inputs} x {outputs}", " x ".join(str(size) for size in reversed(weight))


def _base_shapes(folder: Path) -> Shapes:
    """Those of the model's weights; what cannot be read is told when it is loaded."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            shapes |= _shapes(file)
        except (OSError, SafetensorError):
            continue
    return shapes


def _shapes(file: Path) -> Shapes:
    with safe_open(file, framework="np") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no mapping


def adapter_error(message: str) -> StageError:
    """The error for an adapter that cannot be gone on from."""
    return StageError(ExitCode.MODEL, "AdapterBroken", f"spec.{ADAPTER_INPUT}: {message}")
