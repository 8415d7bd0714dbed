"""Model FLOPs utilization: the share of a device's peak that the training's own arithmetic needs.

Forward pass of one token through a dense decoder, a multiply and an add counted as two:
``L * (2h(qd + 2kd) + 2qdh + 4qdS + 6hi) + 2Vh`` with L layers, hidden size h, q heads and k key-value heads of size d,
row length S, MLP size i (three matrices) and vocabulary V. Attention counts every token against the whole row, as
PaLM's appendix B (arXiv:2204.02311) and Megatron do; recomputation counts nothing. Training all weights costs three
forward passes; an adapter costs two, because no gradient of a frozen weight is computed.

Peaks are dense BF16 rates of NVIDIA's and AMD's data sheets, as TorchTitan's and TRL's tables list them.
"""

import re
from typing import Any, Final

_PEAKS: Final[tuple[tuple[str, float], ...]] = (
    # A longer name stands before the shorter one that it contains.
    ("GB300", 2500e12),
    ("GB200", 2500e12),
    ("B300", 2250e12),
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10G", 125e12),
    ("A10", 125e12),
    ("MI355X", 2500e12),
    ("MI325X", 1300e12),
    ("MI300X", 1300e12),
)


def peak(device_name: str) -> float | None:
    """Dense BF16 FLOP/s of a device by the name that its driver gives it; None for one that is not in the table."""
    return next((rate for name, rate in _PEAKS if re.search(rf"\b{name}\b", device_name, re.IGNORECASE)), None)


def per_token(config: Any, *, length: float, all_weights: bool) -> float | None:
    """FLOPs of training one token in rows of ``length`` tokens.

    ``config`` is a model's configuration. None for a mixture of experts, and for one that does not say its sizes as
    Llama's does.
    """
    if getattr(config, "num_experts_per_tok", None) is not None:
        return None
    try:
        hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        size = getattr(config, "head_dim", None) or hidden // heads
        projections = 2 * hidden * size * (heads + 2 * key_heads) + 2 * heads * size * hidden
        layer = projections + 4 * heads * size * length + 6 * hidden * config.intermediate_size
        forward = layers * layer + 2 * config.vocab_size * hidden
    except (AttributeError, TypeError):
        return None
    return float((3 if all_weights else 2) * forward)
