"""An adapter to go on from: what is refused before a weight is read, and that the error says what to do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_finetune.initial import check_adapter_folder
from posttrain_runtime.errors import StageError
from safetensors.numpy import save_file

MODULE = "model.layers.0.self_attn.q_proj"
RANK, INPUTS, OUTPUTS = 4, 16, 32


def matrix(rows: int, columns: int) -> Any:
    return np.zeros((rows, columns), dtype=np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({f"{MODULE}.weight": matrix(OUTPUTS, INPUTS)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole adapter, to spoil."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK}), encoding="utf-8")
    write_weights(folder)
    return folder


def write_weights(folder: Path, *, inputs: int = INPUTS, outputs: int = OUTPUTS, module: str = MODULE) -> None:
    weights = {
        f"base_model.model.{module}.lora_A.weight": matrix(RANK, inputs),
        f"base_model.model.{module}.lora_B.weight": matrix(outputs, RANK),
    }
    save_file(weights, folder / "adapter_model.safetensors")


def refusal(folder: Path, base: Path) -> str:
    with pytest.raises(StageError) as caught:
        check_adapter_folder(folder, base=base)
    assert (caught.value.code, caught.value.reason) == (ExitCode.MODEL, "AdapterBroken")
    assert caught.value.message.startswith("spec.adapter.initial: ")
    return caught.value.message


def test_a_whole_adapter_of_the_model_is_let_through(folder: Path, base: Path) -> None:
    check_adapter_folder(folder, base=base)


def test_a_module_that_the_model_spells_otherwise_is_left_to_the_library(folder: Path, base: Path) -> None:
    write_weights(folder, inputs=7, module="transformer.h.0.attn")
    check_adapter_folder(folder, base=base)


def test_a_weight_that_is_stored_the_other_way_round_fits_too(folder: Path, base: Path) -> None:
    save_file({f"{MODULE}.weight": matrix(INPUTS, OUTPUTS)}, base / "model.safetensors")
    check_adapter_folder(folder, base=base)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_is_missing_is_named(folder: Path, base: Path, missing: str) -> None:
    (folder / missing).unlink()
    assert f"first has no {missing}; " in refusal(folder, base)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"peft_type": 3}', "\xff"])
def test_a_configuration_that_is_none_is_told(folder: Path, base: Path, text: str) -> None:
    (folder / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert "adapter_config.json of first is no JSON object that says its peft_type" in refusal(folder, base)


def test_damaged_weights_are_told(folder: Path, base: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    assert "adapter_model.safetensors of first cannot be read" in refusal(folder, base)


@pytest.mark.parametrize(("inputs", "outputs"), [(24, OUTPUTS), (INPUTS, 8)])
def test_an_adapter_of_a_model_of_another_size_is_told(folder: Path, base: Path, inputs: int, outputs: int) -> None:
    write_weights(folder, inputs=inputs, outputs=outputs)
    message = refusal(folder, base)
    assert f"is for a module {MODULE} of {inputs} x {outputs}, and that of spec.model has 16 x 32" in message
    assert "name the model it was trained on" in message


def test_no_library_for_training_is_loaded_for_that() -> None:
    heavy = (
        "import sys, posttrain_finetune.initial; sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0
