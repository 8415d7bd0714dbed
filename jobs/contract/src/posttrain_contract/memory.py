"""How much memory of each GPU a fine-tuning needs: arithmetic over its settings and the model's shape.

It counts what the stage program really does. Weights are loaded in ``training.precision``. DeepSpeed keeps a float32
copy of what it trains, FSDP2 trains in float32, PEFT keeps an adapter in float32 except on quantized weights and under
ZeRO. The bytes of weights, gradients and optimizer are those of the ZeRO paper (arXiv:1910.02054, section 3). A layer's
activations are the tensors that PyTorch keeps for the backward pass of Llama's layer as transformers writes it. Logits
never exist as a whole while training, since TRL computes them in tiles; they do while perplexity is evaluated.

Left out: the cache of evaluation by generation, since the length of its prompts is not known here, and what a user's
``distributed.override`` changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from posttrain_contract.adapter import Lora
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.shape import ModelShape

_CONTEXT: Final = 1.5 * 2**30
"""The CUDA context, workspaces of its libraries and NCCL's channels; an estimate."""
_FRAGMENTED: Final = 0.05
"""Share of everything else that PyTorch's allocator holds without use; an estimate."""
_QUANTIZED: Final[Mapping[str, float]] = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}
"""Bytes of a quantized weight: nf4 has a byte for each block of 64, and a float32 for each 256 of those."""
_PRECISION: Final[Mapping[str, int]] = {"bf16": 2, "fp32": 4}
_TILE_TOKENS, _TILE_WORDS = 4096, 32_768
"""The part of the logits that TRL 1.16's fused head has at hand."""
_EVALUATED: Final = 1024
"""Positions whose logits evaluation.perplexity has in float32."""
_BUCKET, _LIVE = 500_000_000, 1_000_000_000
"""DeepSpeed's reduce_bucket_size and stage3_max_live_parameters, in elements."""
_SPLIT: Final[Mapping[str, frozenset[str]]] = {
    "weights": frozenset({"zero3", "fsdp2"}),
    "gradients": frozenset({"zero2", "zero3", "fsdp2"}),
    "optimizer": frozenset({"zero1", "zero2", "zero3", "fsdp2"}),
}


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU at the peak."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    evaluation: int
    """Logits while perplexity is evaluated, when there are no activations."""
    other: int
    """Weights gathered or dequantized for use, buffers of the communication, the CUDA context, fragmentation."""

    @property
    def total(self) -> int:
        """The peak: of training, or of evaluation where that needs more."""
        standing = self.weights + self.gradients + self.optimizer + self.other
        return standing + max(self.activations + self.logits, self.evaluation)


def estimate(spec: FineTuneSpec, shape: ModelShape) -> Estimate:
    """What the job needs on each GPU, in bytes, were there no limit."""
    trained = trained_parameters(spec, shape)
    element = _trained_element(spec)
    weights = _weights(spec, shape, trained) / _parts(spec, "weights")
    # DDP sends gradients from buffers of its own, as large as the gradients.
    copies = 2 if spec.distributed.strategy == "ddp" and _world(spec) > 1 else 1
    gradients = trained * element * copies / _parts(spec, "gradients")
    optimizer = _optimizer(spec, shape, trained) / _parts(spec, "optimizer")
    activations, logits = _activations(spec, shape), _logits(spec, shape)
    used = (weights, gradients, optimizer, activations, logits)
    other = _gathered(spec, shape) + _buckets(spec, trained) + _CONTEXT + _FRAGMENTED * sum(used)
    return Estimate(*(int(part) for part in (*used, _evaluation(spec, shape), other)))


def trained_parameters(spec: FineTuneSpec, shape: ModelShape) -> int:
    """Weights that are trained: all, or those of the adapter. One to go on from counts as the default one."""
    if spec.adapter is None:
        return shape.parameters
    lora, linears = spec.adapter.lora or Lora(), shape.linears
    sizes = [linears[name] for name in _adapted(spec, shape)]
    return shape.layers * sum(lora.rank * (inputs + outputs) + lora.dora * outputs for inputs, outputs in sizes)


def _adapted(spec: FineTuneSpec, shape: ModelShape) -> set[str]:
    """The linear modules that an adapter is beside."""
    if spec.adapter is None:
        return set()
    named = {name.strip() for name in (spec.adapter.lora or Lora()).target_modules.split(",")}
    # A name that is not Llama's belongs to modules of unknown size: they count as all.
    return named if named <= shape.linears.keys() else set(shape.linears)


def _world(spec: FineTuneSpec) -> int:
    return spec.distributed.nodes * spec.distributed.processes_per_node


def _parts(spec: FineTuneSpec, what: str) -> int:
    """Among how many GPUs this is split."""
    return _world(spec) if spec.distributed.strategy in _SPLIT[what] else 1


def _is_zero(spec: FineTuneSpec) -> bool:
    return spec.distributed.strategy.startswith("zero")


def _quantization(spec: FineTuneSpec) -> str | None:
    return spec.adapter.quantization if spec.adapter is not None else None


def _trained_element(spec: FineTuneSpec) -> int:
    """Bytes of a trained weight, and of its gradient."""
    in_float32 = spec.adapter is not None and _quantization(spec) is None
    if spec.distributed.strategy == "fsdp2" or (in_float32 and not _is_zero(spec)):
        return 4
    return _PRECISION[spec.training.precision]


def _weights(spec: FineTuneSpec, shape: ModelShape, trained: int) -> float:
    if spec.adapter is None:
        return trained * _trained_element(spec)
    element = _PRECISION[spec.training.precision]
    linear = shape.layers * shape.linear
    frozen = linear * _QUANTIZED.get(_quantization(spec) or "", element) + (shape.parameters - linear) * element
    return frozen + trained * _trained_element(spec)


def _optimizer(spec: FineTuneSpec, shape: ModelShape, trained: int) -> float:
    """The optimizer's state, and the float32 copy that DeepSpeed trains; paged state counts as if it stayed."""
    element = 4 if _is_zero(spec) else _trained_element(spec)
    copy = 4 * trained if _is_zero(spec) else 0
    match spec.training.optimizer:
        case "adamw_torch" | "adamw_torch_fused":
            return copy + 2 * element * trained
        case "adamw_bnb_8bit" | "paged_adamw_8bit":
            # transformers keeps the moments of embeddings in float32, where it sees them as such.
            whole = shape.vocabulary * shape.hidden if spec.adapter is None and not _is_zero(spec) else 0
            return copy + 2 * trained + 6 * whole
        case "adafactor":
            # One number a row and one a column; DeepSpeed hands it flat pieces, which have neither.
            return copy + (4 * trained if _is_zero(spec) else 0)
        case "sgd":
            return copy


def _tokens(spec: FineTuneSpec) -> int:
    """Tokens of one forward pass; a pair is two rows."""
    return _rows(spec) * spec.training.max_length


def _rows(spec: FineTuneSpec) -> int:
    return spec.training.batch_size * (2 if spec.method == "dpo" else 1)


def _activations(spec: FineTuneSpec, shape: ModelShape) -> float:
    """What the forward pass keeps for the backward pass, and the gradients on their way through one layer."""
    element, tokens = _PRECISION[spec.training.precision], _tokens(spec)
    layer = _layer(spec, shape)
    moving = element * tokens * (3 * shape.intermediate + 2 * shape.hidden)
    match spec.training.gradient_checkpointing:
        case "off":
            return shape.layers * layer + moving
        case "selective":
            return shape.layers * element * tokens * (shape.hidden + shape.queries) + layer + moving
        case "full":
            return shape.layers * element * tokens * shape.hidden + layer + moving


def _layer(spec: FineTuneSpec, shape: ModelShape) -> float:
    """What one layer keeps.

    Each norm: its input in float32. Attention: queries, keys, values and output. The MLP: the gate before and after its
    activation, and the other factor. Then what the trained weights need.
    """
    element, tokens, masked = _PRECISION[spec.training.precision], _tokens(spec), _mask(spec)
    # With a mask, keys and values are repeated to the number of heads first.
    keys = shape.queries if masked else shape.keys
    kept = 8 * shape.hidden + element * (2 * shape.queries + 2 * keys + 3 * shape.intermediate)
    scores = masked * ((4 + element) * shape.heads if spec.training.attention == "eager" else element)
    return tokens * (kept + _inputs(spec, shape)) + scores


def _inputs(spec: FineTuneSpec, shape: ModelShape) -> float:
    """Bytes a token of what the trained weights of a layer are multiplied with; the output of attention is kept anyway.

    All weights: the quotients of the norms, and the inputs of the linear modules. Modules of an adapter share theirs,
    unless each makes its own: from dropout, with a byte for its mask, or from the adapter's float32.
    """
    element, hidden = _PRECISION[spec.training.precision], shape.hidden
    if spec.adapter is None:
        return element * (4 * hidden + shape.intermediate)
    adapted, dropout = _adapted(spec, shape), (spec.adapter.lora or Lora()).dropout > 0
    if dropout or (spec.distributed.strategy == "ddp" and _trained_element(spec) != element):
        return (element + dropout) * sum(shape.linears[name][0] for name in adapted)
    shared = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1}
    norms = {shared[name] for name in adapted & shared.keys()}
    return element * (len(norms) * hidden + ("down_proj" in adapted) * shape.intermediate)


def _mask(spec: FineTuneSpec) -> int:
    """Elements of the mask between tokens that attention gets; flash attention gets none.

    Packed rows are one long row with a mask that keeps them apart, so it grows with the square of all tokens. Without
    packing, sdpa gets a mask where rows are padded to the longest.
    """
    training, rows = spec.training, _rows(spec)
    if training.attention.startswith("flash") or (training.attention == "sdpa" and rows == 1 and not training.packing):
        return 0
    return _tokens(spec) ** 2 if training.packing else rows * training.max_length**2


def _logits(spec: FineTuneSpec, shape: ModelShape) -> float:
    """A tile of logits, the gradient of the last hidden states, and that of a trained head, which is float32."""
    tokens = _tokens(spec)
    tile = min(tokens, _TILE_TOKENS) * _TILE_WORDS * _PRECISION[spec.training.precision]
    head = 4 * shape.vocabulary * shape.hidden if spec.adapter is None else 0
    return tile + 4 * tokens * shape.hidden + head


def _evaluation(spec: FineTuneSpec, shape: ModelShape) -> float:
    """Logits of whole rows, which accelerate turns into float32, and the positions that are scored at once."""
    if spec.evaluation is None or not spec.evaluation.perplexity:
        return 0
    length, element = spec.training.max_length, _PRECISION[spec.training.precision]
    whole = length * (4 if element == 4 else element + 4)
    return spec.training.batch_size * shape.vocabulary * (whole + 8 * min(length, _EVALUATED))


def _gathered(spec: FineTuneSpec, shape: ModelShape) -> float:
    """Weights that are whole for a while: two layers and what is outside them, or one module that is quantized."""
    element = _PRECISION[spec.training.precision]
    if _quantization(spec) is not None:
        return element * shape.hidden * shape.intermediate
    if spec.distributed.strategy not in _SPLIT["weights"]:
        return 0
    whole = 2 * shape.layer + shape.outside
    return element * min(shape.parameters, max(whole, _LIVE) if _is_zero(spec) else whole)


def _buckets(spec: FineTuneSpec, trained: int) -> float:
    """DeepSpeed reduces gradients from one buffer while it fills another."""
    return 2 * _PRECISION[spec.training.precision] * min(trained, _BUCKET) if _is_zero(spec) else 0
