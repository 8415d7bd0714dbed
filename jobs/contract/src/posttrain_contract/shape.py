"""The sizes of a model that its memory follows from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a dense decoder that is built like Llama."""

    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    head_size: int | None = None
    """None: the hidden size divided by the heads."""
    tied: bool = False
    """Whether the embeddings are the head too."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The shape that a ``config.json`` tells.

        Raises ``ValueError`` with a sentence for a mixture of experts and for one that does not say its sizes as
        Llama's does.
        """
        text = config.get("text_config") or config
        if text.get("num_experts_per_tok") is not None:
            raise ValueError("it is a mixture of experts, for which there is no estimate")
        try:
            shape = cls(
                layers=int(text["num_hidden_layers"]),
                hidden=int(text["hidden_size"]),
                heads=int(text["num_attention_heads"]),
                key_value_heads=int(text.get("num_key_value_heads") or text["num_attention_heads"]),
                intermediate=int(text["intermediate_size"]),
                vocabulary=int(text["vocab_size"]),
                head_size=int(text["head_dim"]) if text.get("head_dim") is not None else None,
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it does not say its sizes as Llama's config.json does ({error})") from error
        sizes = (shape.layers, shape.hidden, shape.heads, shape.key_value_heads, shape.intermediate, shape.vocabulary)
        if min(sizes) < 1 or (shape.head_size is not None and shape.head_size < 1):
            raise ValueError("a size in its config.json is not positive")
        return shape

    @property
    def queries(self) -> int:
        """Width of all queries."""
        return self.heads * (self.head_size or self.hidden // self.heads)

    @property
    def keys(self) -> int:
        """Width of all keys; that of all values is the same."""
        return self.key_value_heads * (self.head_size or self.hidden // self.heads)

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear modules of a layer: inputs and outputs."""
        hidden, inner = self.hidden, self.intermediate
        return {
            "q_proj": (hidden, self.queries),
            "k_proj": (hidden, self.keys),
            "v_proj": (hidden, self.keys),
            "o_proj": (self.queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def linear(self) -> int:
        """Weights of the linear modules of one layer."""
        return sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        return self.linear + 2 * self.hidden

    @property
    def outside(self) -> int:
        """Weights outside the layers: embeddings, head and the last norm."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layers * self.layer + self.outside
