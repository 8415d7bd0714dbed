"""Model folders: what is refused, and that the error says what is missing and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.training import Training
from posttrain_runtime.errors import StageError
from posttrain_training.folders import check_model_folder
from posttrain_training.models import count_trained, load_model
from posttrain_training.tokenizers import load_tokenizer
from support.tiny import make_tiny_inputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_inputs(folder)
    return folder / "base-model"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refusal(action: Callable[[], object]) -> StageError:
    with pytest.raises(StageError) as caught:
        action()
    assert caught.value.code is ExitCode.MODEL
    assert caught.value.message.startswith("spec.model: ")
    return caught.value


def test_a_whole_folder_loads_in_the_precision_asked_for(whole: Path) -> None:
    check_model_folder(whole)
    assert load_tokenizer(whole).chat_template is not None
    for precision, dtype in (("fp32", "torch.float32"), ("bf16", "torch.bfloat16")):
        model = load_model(whole, Training.parse({"precision": precision}))
        assert {str(parameter.dtype) for parameter in model.parameters()} == {dtype}


def test_a_folder_without_tokenizer_names_the_files_and_the_remedy(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    error = refusal(lambda: check_model_folder(folder))
    assert error.reason == "TokenizerMissing"
    assert "tokenizer.json" in error.message
    assert "save_pretrained" in error.message


def test_an_adapter_is_not_taken_for_a_model(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    error = refusal(lambda: check_model_folder(folder))
    assert error.reason == "AdapterOnly"
    assert "export.merge" in error.message


def test_a_folder_of_something_else_says_what_it_has(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "model.safetensors" in refusal(lambda: check_model_folder(folder)).message
    assert refusal(lambda: check_model_folder(folder / "tokenizer.json")).reason == "NotAModelFolder"


def test_a_tokenizer_without_chat_template_is_an_error(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert "chat_template.jinja" in refusal(lambda: load_tokenizer(folder)).message


def test_damaged_weights_are_an_error(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    error = refusal(lambda: load_model(folder, Training()))
    assert error.reason == "ModelBroken"
    assert "copy the folder anew" in error.message


def test_a_damaged_tokenizer_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    error = refusal(lambda: load_tokenizer(folder))
    assert error.reason == "TokenizerBroken"
    assert "tokenizer.save_pretrained" in error.message


def test_an_attention_that_is_not_installed_is_an_error_that_names_one_that_is(whole: Path) -> None:
    with pytest.raises(StageError) as caught:
        load_model(whole, Training.parse({"attention": "flash_attention_2"}))
    assert (caught.value.code, caught.value.reason) == (ExitCode.MODEL, "AttentionUnavailable")
    assert caught.value.message.startswith("spec.training.attention: flash_attention_2 cannot be used here")
    assert "take sdpa" in caught.value.message


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_a_model_that_wants_its_own_code_run_is_refused_before_its_weights_are_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not read")
    (folder / "modeling.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    change_json(folder / "config.json", model_type="novel", auto_map={"AutoModelForCausalLM": "modeling.Novel"})
    error = refusal(lambda: check_model_folder(folder))
    assert error.reason == "RemoteCode"
    assert "auto_map in config.json, of model_type 'novel': trust_remote_code" in error.message


def test_a_model_whose_code_is_known_needs_not_its_own(folder: Path) -> None:
    (folder / "modeling.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    auto_map = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    change_json(folder / "config.json", auto_map=auto_map)
    check_model_folder(folder)
    assert load_tokenizer(folder).chat_template is not None
    assert load_model(folder, Training()).config.model_type


def test_a_tokenizer_that_wants_its_own_code_run_is_refused_and_nobody_is_asked(folder: Path) -> None:
    (folder / "tokenization.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    change_json(folder / "config.json", model_type="novel")
    auto_map = {"AutoTokenizer": [None, "tokenization.Novel"]}
    change_json(folder / "tokenizer_config.json", tokenizer_class="Novel", auto_map=auto_map)
    error = refusal(lambda: load_tokenizer(folder))
    assert error.reason == "RemoteCode"
    assert "auto_map in tokenizer_config.json" in error.message


def test_a_model_that_is_quantized_already_is_refused(folder: Path) -> None:
    change_json(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    error = refusal(lambda: check_model_folder(folder))
    assert error.reason == "ModelQuantized"
    assert "quantization_config in config.json: awq" in error.message
    assert "adapter.quantization" in error.message


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_configuration_is_an_error(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    error = refusal(lambda: check_model_folder(folder))
    assert error.reason == "ConfigBroken"
    assert "config.json" in error.message


def test_a_tokenizer_that_names_no_end_is_an_error(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", eos_token=None)
    error = refusal(lambda: load_tokenizer(folder))
    assert error.reason == "EndTokenMissing"
    assert "eos_token" in error.message


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # PEFT's own call
def test_a_checkpoint_of_an_adapter_is_expected_to_be_as_small_as_it_is(whole: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = load_model(whole, Training(precision="fp32"))
    weights = count_trained(model)
    adapter = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=1, target_modules=["q_proj"]))
    projections = [module.weight for name, module in model.named_modules() if name.endswith("q_proj.base_layer")]
    assert count_trained(adapter) == sum(sum(projection.shape) for projection in projections) < weights / 50


def test_weights_that_are_split_among_processes_count_whole() -> None:
    split = torch.nn.Parameter(torch.empty(0))
    split.ds_numel = 1000  # as DeepSpeed notes it
    module = torch.nn.Linear(2, 3, bias=False)
    module.register_parameter("split", split)
    assert count_trained(module) == 1006
