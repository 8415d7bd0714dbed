"""From texts to tokens, and from a character to the token that it is in."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

_PROBE: Final = " A few words, zwei Wörter\n\n  日本語 3 🙂"


@dataclass(frozen=True)
class Encoded:
    """The tokens of one text."""

    text: str
    ids: Tokens
    ends: NDArray[np.int64] | None
    """How many bytes of the text each token and those before it are; None where only the tokenizer knows."""
    encoding: Any

    def token_at(self, character: int) -> int:
        """The token that a character belongs to, or the next one, since some characters belong to none."""
        if self.ends is not None:
            byte = character if self.text.isascii() else len(self.text[:character].encode())
            return int(self.ends.searchsorted(byte, side="right"))
        found = self.encoding.char_to_token(character)
        if found is None:
            # The offsets are made into a list anew at each look, so nobody looks who need not.
            later = (number for number, (_, end) in enumerate(self.encoding.offsets) if end > character)
            found = next(later, len(self.ids))
        return int(found)


class TextEncoder:
    """Encodes texts by a fast tokenizer.

    The tokens of a byte-level tokenizer are the bytes of the text, cut into pieces, so the lengths of the pieces say
    where each token is. That spares the tokenizer to keep positions, which is a tenth of its time. Where the lengths
    do not add up to the text, and for other tokenizers, its own positions are taken.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._lengths = _byte_lengths(self._backend)
        if self._lengths is not None and self._fast([_PROBE])[0].ends is None:
            self._lengths = None

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The tokens of texts, to which nothing is added."""
        return self._slow(texts) if self._lengths is None else self._fast(texts)

    def _slow(self, texts: Sequence[str]) -> list[Encoded]:
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            Encoded(text, np.array(encoding.ids, dtype=np.int32), None, encoding)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _fast(self, texts: Sequence[str]) -> list[Encoded]:
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [self._with_ends(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def _with_ends(self, text: str, encoding: Any) -> Encoded:
        ids = np.array(encoding.ids, dtype=np.int32)
        ends = np.cumsum(self._lengths[ids]) if self._lengths is not None else np.zeros(0, dtype=np.int64)
        size = len(text) if text.isascii() else len(text.encode())
        if not len(ends) or ends[-1] != size or not _is_composed(text):
            return self._slow([text])[0]
        return Encoded(text, ids, ends, encoding)


def _is_composed(text: str) -> bool:
    """Whether the usual normalization leaves a text alone, so that no two changes of length cancel out."""
    return text.isascii() or unicodedata.is_normalized("NFC", text)


def _byte_lengths(backend: Any) -> NDArray[np.int64] | None:
    """The bytes that each token stands for, by its number; None for a tokenizer whose tokens are not bytes."""
    normalizer = backend.normalizer
    if type(backend.decoder).__name__ != "ByteLevel" or type(normalizer).__name__ not in ("NoneType", "NFC"):
        return None
    lengths = np.zeros(backend.get_vocab_size(with_added_tokens=True), dtype=np.int64)
    sizes = {number: len(token) for token, number in backend.get_vocab(with_added_tokens=False).items()}
    sizes |= {number: len(token.content.encode()) for number, token in backend.get_added_tokens_decoder().items()}
    if max(sizes, default=0) >= len(lengths):
        lengths = np.zeros(max(sizes) + 1, dtype=np.int64)
    lengths[list(sizes)] = list(sizes.values())
    return lengths
