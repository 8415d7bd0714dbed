"""The estimate of memory: figures that were published or derived elsewhere, and how each setting moves it."""

from typing import Any

import pytest
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.memory import Estimate, estimate, trained_parameters
from posttrain_contract.shape import ModelShape

GB = 1e9
LLAMA_2_7B = ModelShape(layers=32, hidden=4096, heads=32, key_value_heads=32, intermediate=11_008, vocabulary=32_000)
LLAMA_2_70B = ModelShape(layers=80, hidden=8192, heads=64, key_value_heads=8, intermediate=28_672, vocabulary=32_000)
LLM_JP_4_8B = ModelShape(layers=32, hidden=4096, heads=32, key_value_heads=8, intermediate=14_336, vocabulary=196_608)
QWEN3_32B = ModelShape(
    layers=64, hidden=5120, heads=64, key_value_heads=8, intermediate=25_600, vocabulary=151_936, head_size=128
)
LORA = {"lora": {"rank": 16}}


def job(*, nodes: int = 1, gpus: int = 1, strategy: str = "ddp", **more: Any) -> FineTuneSpec:
    """A job of one row of 4096 tokens and flash attention; ``more`` are fields of the specification or of training."""
    fields: dict[str, Any] = {name: more.pop(name) for name in ("method", "adapter", "evaluation") if name in more}
    preference = {"format": "preference"} if fields.get("method") == "dpo" else {}
    validation = {"validation": 0.1} if "evaluation" in fields else {}
    return FineTuneSpec.parse(
        {
            "model": {"uri": "pvc://models/m"},
            "dataset": {"uri": "pvc://data/d.jsonl", **preference, **validation},
            "training": {"batchSize": 1, "maxLength": 4096, "attention": "flash_attention_2", **more},
            "distributed": {"nodes": nodes, "processesPerNode": gpus, "strategy": strategy},
            **fields,
        }
    )


def standing(needed: Estimate) -> float:
    """What the weights and their training hold all the time, in GB."""
    return (needed.weights + needed.gradients + needed.optimizer) / GB


def tokens(spec: FineTuneSpec) -> int:
    return spec.training.batch_size * spec.training.max_length


@pytest.mark.parametrize(
    ("spec", "shape", "gigabytes", "tolerance"),
    [
        # 16 bytes a parameter on one GPU, and split among several
        (job(precision="fp32"), LLM_JP_4_8B, 137, 0.01),
        (job(gpus=8, strategy="zero3"), LLM_JP_4_8B, 17, 0.02),
        (job(gpus=8, strategy="zero3"), QWEN3_32B, 66, 0.02),
        (job(gpus=8, strategy="zero3"), LLAMA_2_70B, 138, 0.02),
        (job(gpus=8, nodes=2, strategy="zero3"), LLAMA_2_70B, 69, 0.02),
        (job(gpus=8, nodes=2, strategy="fsdp2"), LLAMA_2_70B, 69, 0.02),
        # bf16 throughout
        (job(), LLM_JP_4_8B, 69, 0.01),
        # 8-bit moments, but those of the embeddings: 6 or 10 bytes a parameter and 6 more for each of 805 million
        (job(optimizer="adamw_bnb_8bit"), LLM_JP_4_8B, 52 + 4.8, 0.01),
        (job(optimizer="adamw_bnb_8bit", precision="fp32"), LLM_JP_4_8B, 86 + 4.8, 0.01),
    ],
)
def test_bytes_of_weights_gradients_and_optimizer(
    spec: FineTuneSpec, shape: ModelShape, gigabytes: float, tolerance: float
) -> None:
    assert standing(estimate(spec, shape)) == pytest.approx(gigabytes, rel=tolerance)


def test_the_weights_of_70b_in_bf16_and_in_4_bits() -> None:
    assert estimate(job(adapter=LORA), LLAMA_2_70B).weights / GB == pytest.approx(138, rel=0.01)
    quantized = estimate(job(adapter={**LORA, "quantization": "nf4"}), LLAMA_2_70B)
    assert 68.98 / 2 < quantized.weights / GB < 68.98 / 2 * 1.1, "half a byte each, and up to a tenth more"


@pytest.mark.parametrize(
    ("name", "spec", "shape", "gigabytes"),
    [
        (
            "PEFT's guide to DeepSpeed: LoRA of rank 8, ZeRO-3 over 8 H100, 8 rows of 2048 tokens, checkpointing",
            job(
                adapter={"lora": {"rank": 8}},
                gpus=8,
                strategy="zero3",
                batchSize=8,
                maxLength=2048,
                gradientCheckpointing="full",
            ),
            LLAMA_2_70B,
            64,
        ),
        (
            "LongLoRA, arXiv:2309.12307, table 12: plain LoRA, ZeRO-2 over 8 A100, 8192 tokens, checkpointing",
            job(
                adapter={"lora": {"rank": 8, "targetModules": "q_proj,k_proj,v_proj,o_proj"}},
                gpus=8,
                strategy="zero2",
                maxLength=8192,
                gradientCheckpointing="full",
            ),
            LLAMA_2_7B,
            25.7,
        ),
    ],
)
def test_what_others_measured_on_gpus(name: str, spec: FineTuneSpec, shape: ModelShape, gigabytes: float) -> None:
    """Within 10 %. They held whole logits: in bf16 and float32, and the gradients of both."""
    whole_logits = tokens(spec) * shape.vocabulary * 2 * (2 + 4)
    assert (estimate(spec, shape).total + whole_logits) / GB == pytest.approx(gigabytes, rel=0.10), name


def test_activations_of_8b_without_checkpointing() -> None:
    """37 to 45 GB for 8,192 tokens with the leanest norms and MLP; the library's own keep up to a fifth more."""
    needed = estimate(job(maxLength=8192), LLM_JP_4_8B)
    assert 45 < needed.activations / GB < 45 * 1.2


def test_activations_grow_with_tokens_and_shrink_with_checkpointing() -> None:
    off, selective, full = (
        estimate(job(gradientCheckpointing=kind, maxLength=4096), LLAMA_2_7B).activations
        for kind in ("off", "selective", "full")
    )
    assert full < selective < off / 5
    twice = estimate(job(maxLength=4096, batchSize=2), LLAMA_2_7B).activations
    assert twice == pytest.approx(2 * off, rel=0.001)


def test_a_pair_is_two_rows() -> None:
    sft, dpo = (estimate(job(method=method), LLAMA_2_7B) for method in ("sft", "dpo"))
    assert dpo.activations == pytest.approx(2 * sft.activations, rel=0.001)
    assert standing(dpo) == standing(sft), "there is no second model"


def test_attention_keeps_what_its_mask_makes_it() -> None:
    def kept(attention: str, **more: Any) -> float:
        return estimate(job(attention=attention, batchSize=4, **more), LLAMA_2_7B).activations / GB

    assert kept("flash_attention_2") < kept("sdpa") < kept("eager")
    assert kept("flash_attention_2", packing=True) == kept("flash_attention_2")
    masks = 32 * 2 * (4 * 4096) ** 2 / GB
    assert kept("sdpa", packing=True) - kept("flash_attention_2") == pytest.approx(masks, rel=0.01)


def test_an_adapter_holds_little_beside_the_weights() -> None:
    spec = job(adapter=LORA)
    assert trained_parameters(spec, LLAMA_2_7B) == 32 * 16 * (4 * 2 * 4096 + 3 * (4096 + 11_008))
    needed = estimate(spec, LLAMA_2_7B)
    assert needed.gradients + needed.optimizer == 12 * trained_parameters(spec, LLAMA_2_7B), "it is in float32"
    quantized = estimate(job(adapter={**LORA, "quantization": "nf4"}), LLAMA_2_7B)
    assert quantized.gradients == needed.gradients / 2, "on quantized weights it is in bf16"


@pytest.mark.parametrize(
    ("modules", "share"), [("q_proj,v_proj", 2 * 2 * 4096), ("qkv_proj", 4 * 2 * 4096 + 3 * (4096 + 11_008))]
)
def test_modules_of_an_adapter(modules: str, share: int) -> None:
    spec = job(adapter={"lora": {"rank": 16, "targetModules": modules}})
    assert trained_parameters(spec, LLAMA_2_7B) == 32 * 16 * share


def test_an_adapter_keeps_the_inputs_of_its_modules() -> None:
    zero3: dict[str, Any] = {"gpus": 2, "strategy": "zero3"}

    def kept(modules: str, dropout: float = 0.0, **more: Any) -> float:
        """Bytes a token and layer."""
        adapter = {"lora": {"rank": 1, "targetModules": modules, "dropout": dropout}}
        return estimate(job(adapter=adapter, **more), LLAMA_2_7B).activations / (32 * 4096)

    nothing = kept("o_proj", **zero3)  # what attention gives is kept anyway
    assert kept("q_proj", **zero3) == kept("q_proj,k_proj,v_proj", **zero3) == nothing + 2 * 4096, "they share it"
    assert kept("q_proj,up_proj", **zero3) == nothing + 2 * 2 * 4096
    assert kept("down_proj", **zero3) == nothing + 2 * 11_008
    assert kept("q_proj,k_proj,v_proj") == nothing + 3 * 2 * 4096, "each makes its own from the adapter's float32"
    assert kept("q_proj,k_proj", 0.1, **zero3) == nothing + 2 * 3 * 4096, "and by dropout, with a byte for the mask"


@pytest.mark.parametrize(
    ("strategy", "split"),
    [
        ("ddp", set()),
        ("zero1", {"optimizer"}),
        ("zero2", {"optimizer", "gradients"}),
        ("zero3", {"optimizer", "gradients", "weights"}),
        ("fsdp2", {"optimizer", "gradients", "weights"}),
    ],
)
def test_each_strategy_splits_what_its_name_says(strategy: str, split: set[str]) -> None:
    few, many = (estimate(job(gpus=gpus, strategy=strategy), LLAMA_2_7B) for gpus in (2, 8))
    assert {part for part in ("weights", "gradients", "optimizer") if getattr(many, part) < getattr(few, part)} == split
    for part in split:
        assert getattr(few, part) == pytest.approx(4 * getattr(many, part), rel=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "ddp", "zero"),
    [
        ("adamw_torch_fused", 4, 12),
        ("adamw_torch", 4, 12),
        ("adafactor", 0, 8),
        ("sgd", 0, 4),
    ],
)
def test_bytes_of_an_optimizer_for_a_parameter(optimizer: str, ddp: float, zero: float) -> None:
    """In bf16; DeepSpeed adds a float32 copy and keeps its moments in float32."""
    alone = estimate(job(optimizer=optimizer), LLAMA_2_7B)
    split = estimate(job(optimizer=optimizer, gpus=2, strategy="zero1"), LLAMA_2_7B)
    assert alone.optimizer / LLAMA_2_7B.parameters == pytest.approx(ddp)
    assert 2 * split.optimizer / LLAMA_2_7B.parameters == pytest.approx(zero)


@pytest.mark.parametrize("optimizer", ["adamw_bnb_8bit", "paged_adamw_8bit"])
def test_bytes_of_8_bit_moments(optimizer: str) -> None:
    alone = estimate(job(optimizer=optimizer, adapter=LORA), LLAMA_2_7B)
    assert alone.optimizer == 2 * trained_parameters(job(adapter=LORA), LLAMA_2_7B)


def test_ddp_sends_gradients_from_buffers_as_large_as_they_are() -> None:
    one, two = (estimate(job(gpus=gpus), LLAMA_2_7B).gradients for gpus in (1, 2))
    assert two == 2 * one


def test_what_is_split_or_quantized_is_whole_for_a_while() -> None:
    def other(strategy: str, **more: Any) -> float:
        needed = estimate(job(gpus=8, strategy=strategy, **more), LLAMA_2_70B)
        used = standing(needed) + (needed.activations + needed.logits) / GB
        return needed.other / GB - 0.05 * used - 1.5 * 2**30 / GB

    two_layers_and_the_rest = 2 * (2 * LLAMA_2_70B.layer + LLAMA_2_70B.outside) / GB
    assert other("ddp", adapter=LORA) == pytest.approx(0, abs=0.01)
    assert other("fsdp2") == pytest.approx(two_layers_and_the_rest, rel=0.01)
    assert other("zero3") == pytest.approx(two_layers_and_the_rest + 2, rel=0.01), "and two buffers of 1 GB"
    assert other("zero2") == pytest.approx(2, rel=0.01)
    assert other("ddp", adapter={"quantization": "nf4"}) == pytest.approx(2 * 8192 * 28_672 / GB, rel=0.01)


def test_training_holds_no_whole_logits_but_evaluation_does() -> None:
    perplexity: dict[str, Any] = {"evaluation": {"perplexity": True}}
    small, large = (estimate(job(adapter=LORA, batchSize=rows, **perplexity), LLM_JP_4_8B) for rows in (1, 8))
    assert large.logits < 2 * GB
    assert large.evaluation == 8 * small.evaluation
    assert large.evaluation > 8 * 4096 * 196_608 * 6 > 38 * GB, "rows x tokens x words, in bf16 and in float32"
    assert estimate(job(adapter=LORA, batchSize=8), LLM_JP_4_8B).evaluation == 0


def test_the_peak_is_that_of_training_or_of_evaluation() -> None:
    needed = Estimate(weights=1, gradients=2, optimizer=4, activations=8, logits=16, evaluation=32, other=64)
    assert needed.total == 1 + 2 + 4 + 32 + 64
    assert Estimate(weights=1, gradients=2, optimizer=4, activations=8, logits=16, evaluation=3, other=64).total == 95


CONFIG = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 196_608,
}


def test_a_shape_is_read_from_a_configuration() -> None:
    assert ModelShape.from_config(CONFIG) == LLM_JP_4_8B
    assert ModelShape.from_config({"text_config": CONFIG, "vision_config": {}}) == LLM_JP_4_8B
    multi_head = ModelShape.from_config({name: size for name, size in CONFIG.items() if name != "num_key_value_heads"})
    assert multi_head.key_value_heads == 32
    tied = ModelShape.from_config({**CONFIG, "tie_word_embeddings": True, "head_dim": 64})
    assert LLM_JP_4_8B.parameters - tied.parameters > 196_608 * 4096
    assert (tied.queries, tied.keys) == (32 * 64, 8 * 64)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({**CONFIG, "num_experts_per_tok": 8}, "mixture of experts"),
        ({name: size for name, size in CONFIG.items() if name != "hidden_size"}, "hidden_size"),
        ({**CONFIG, "vocab_size": "many"}, "many"),
    ],
)
def test_a_configuration_without_the_sizes_is_explained(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ModelShape.from_config(config)
