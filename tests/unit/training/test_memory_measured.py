"""The estimate of activations against what PyTorch keeps for the backward pass of transformers' own Llama."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.memory import estimate
from posttrain_contract.shape import ModelShape
from transformers import LlamaConfig, LlamaForCausalLM

LENGTH = 256


def shape(layers: int) -> ModelShape:
    return ModelShape(layers=layers, hidden=128, heads=4, key_value_heads=2, intermediate=352, vocabulary=64)


def model(of: ModelShape, *, attention: str, precision: str) -> Any:
    config = LlamaConfig(
        num_hidden_layers=of.layers,
        hidden_size=of.hidden,
        num_attention_heads=of.heads,
        num_key_value_heads=of.key_value_heads,
        intermediate_size=of.intermediate,
        vocab_size=of.vocabulary,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16 if precision == "bf16" else torch.float32).train()


def kept(of: ModelShape, *, rows: int, attention: str, precision: str, adapter: dict[str, Any] | None) -> int:
    """Bytes that the forward pass of the layers keeps, weights not counted."""
    torch.manual_seed(0)
    whole = model(of, attention=attention, precision=precision)
    if adapter is not None:
        whole = get_peft_model(
            whole,
            LoraConfig(
                lora_dropout=adapter["lora"].get("dropout", 0), r=8, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        whole.enable_input_require_grads()
    own = {parameter.untyped_storage().data_ptr() for parameter in whole.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(of.vocabulary, (rows, LENGTH))
    padded = torch.ones_like(tokens)
    padded[1:, LENGTH // 2 :] = 0
    inputs = {"input_ids": tokens, "attention_mask": padded, "use_cache": False}
    backbone = whole.model if adapter is None else whole.base_model.model.model
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        last = backbone(**inputs).last_hidden_state
    assert last.requires_grad
    return sum(found.values())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize(
    "adapter",
    [None, {"lora": {"rank": 8}}, {"lora": {"rank": 8, "dropout": 0.1}}],
    ids=["all-weights", "lora", "lora-dropout"],
)
@pytest.mark.parametrize(
    ("attention", "rows", "precision"),
    [("sdpa", 1, "bf16"), ("sdpa", 2, "bf16"), ("eager", 1, "bf16"), ("sdpa", 1, "fp32")],
)
def test_a_layer_keeps_what_is_estimated(
    attention: str, rows: int, precision: str, adapter: dict[str, Any] | None
) -> None:
    """Within 6 %; the difference between four layers and two is that of two layers alone."""
    spec = FineTuneSpec.parse(
        {
            "model": {"uri": "pvc://m/m"},
            "dataset": {"uri": "pvc://d/d"},
            "adapter": adapter,
            "training": {"batchSize": rows, "maxLength": LENGTH, "attention": attention, "precision": precision},
        }
    )
    two, four = (
        kept(shape(layers), rows=rows, attention=attention, precision=precision, adapter=adapter) for layers in (2, 4)
    )
    estimated = estimate(spec, shape(4)).activations - estimate(spec, shape(2)).activations
    estimated += 2 * masks_of_dropout(shape(2), precision=precision, adapter=adapter) * rows * LENGTH
    assert estimated == pytest.approx(four - two, rel=0.06)


def masks_of_dropout(of: ModelShape, *, precision: str, adapter: dict[str, Any] | None) -> int:
    """Bytes a token that dropout on a CPU keeps more than on a GPU: the adapter's float32 for a byte."""
    dropped = adapter is not None and "dropout" in adapter["lora"]
    return dropped * 3 * sum(inputs for inputs, _ in of.linears.values())
