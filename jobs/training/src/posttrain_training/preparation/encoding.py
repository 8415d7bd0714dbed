"""From examples to tokens and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from posttrain_training.preparation.formats import Demonstration, Example, Message, Pair, PlainText
from posttrain_training.preparation.rendering import Renderer, Span
from posttrain_training.preparation.tokens import Encoded, TextEncoder, Tokens

IGNORED: Final = -100
"""The label of a token that is not learned."""


@dataclass(frozen=True)
class Row:
    """A prepared row: named lists of numbers, such as ``input_ids`` and ``labels``."""

    columns: dict[str, Tokens]

    @property
    def length(self) -> int:
        """Tokens that the model sees at once; of a pair, with the longer answer."""
        ids = self.columns.get("input_ids")
        if ids is not None:
            return len(ids)
        prompt, *answers = (len(self.columns[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        return prompt + max(answers)


class Encoder:
    """Encodes examples; a row of which nothing is left to learn within ``max_length`` is None."""

    def __init__(self, tokenizer: Any, renderer: Renderer | None, *, max_length: int, learn_all: bool) -> None:
        self._end = tokenizer.eos_token
        self._texts_encoder = TextEncoder(tokenizer)
        self._conversations = renderer
        self._max_length = max_length
        self._learn_all = learn_all

    def encode(self, examples: Sequence[tuple[str, Example]]) -> list[Row | None]:
        """The rows of examples, each with the place where it was read."""
        if examples and isinstance(examples[0][1], Pair):
            return self._pairs(examples)
        texts = self._texts(examples)
        return [
            self._row(encoded, self._spans(example, encoded.text, place))
            for encoded, (place, example) in zip(self._texts_encoder.encode(texts), examples, strict=True)
        ]

    def _renderer(self) -> Renderer:
        if self._conversations is None:
            raise RuntimeError("plain text is not rendered")
        return self._conversations

    def _texts(self, examples: Sequence[tuple[str, Example]]) -> list[str]:
        """What is tokenized; rows of one dataset are all of one kind."""
        plain = [example.text + self._end for _, example in examples if isinstance(example, PlainText)]
        chats = [(place, example.messages) for place, example in examples if isinstance(example, Demonstration)]
        return plain or self._renderer().texts(chats)

    def _spans(self, example: Example, text: str, place: str) -> list[Span]:
        """The parts that are learned."""
        if self._learn_all or not isinstance(example, Demonstration):
            return [(0, len(text))]
        return self._renderer().answers(example.messages, text, place)

    def _row(self, encoded: Encoded, spans: Sequence[Span]) -> Row | None:
        ids = encoded.ids[: self._max_length]
        labels = np.full(len(ids), IGNORED, dtype=np.int32)
        learned = 0
        for begin, end in spans:
            first = encoded.token_at(begin)
            last = len(ids) if end == len(encoded.text) else encoded.token_at(end)
            labels[first:last] = answer = ids[first:last]
            learned += len(answer)
        return Row({"input_ids": ids, "labels": labels}) if learned else None

    def _pairs(self, examples: Sequence[tuple[str, Example]]) -> list[Row | None]:
        chats = [(place, messages) for place, example in examples for messages in _conversations(example)]
        texts = self._renderer().texts(chats)
        begins = [
            self._renderer().answers(messages, text, place)[-1][0]
            for (place, messages), text in zip(chats, texts, strict=True)
        ]
        encoded = self._texts_encoder.encode(texts)
        rows = [self._pair(encoded[at : at + 2], begins[at : at + 2]) for at in range(0, len(encoded), 2)]
        return [row if self._has_room(row) else None for row in rows]

    def _pair(self, encoded: Sequence[Encoded], begins: Sequence[int]) -> Row:
        """The prompt is what both have in common before the answers begin: a token may reach over the border."""
        chosen, rejected = (one.ids for one in encoded)
        border = min(one.token_at(begin) for one, begin in zip(encoded, begins, strict=True))
        different = np.nonzero(chosen[:border] != rejected[:border])[0]
        if len(different):
            border = int(different[0])
        return Row({"prompt_ids": chosen[:border], "chosen_ids": chosen[border:], "rejected_ids": rejected[border:]})

    def _has_room(self, row: Row) -> bool:
        return 0 < len(row.columns["prompt_ids"]) < self._max_length


def _conversations(example: Example) -> list[list[Message]]:
    """The conversation of a pair with the better answer, and with the worse one."""
    if not isinstance(example, Pair):
        raise TypeError("rows of one dataset are all of one kind")
    answers = ({"role": "assistant", "content": text} for text in (example.chosen, example.rejected))
    return [[*example.messages, answer] for answer in answers]
