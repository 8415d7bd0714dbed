"""Where a character's token is: told by the lengths of the tokens, it is where the tokenizer itself says it is."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_training.preparation.tokens import TextEncoder
from support.tiny_tokenizer import save_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEXTS = st.text(st.sampled_from("ab 4\n日é🙂\u0301"), max_size=40).map(lambda text: f"<|im_start|>{text}<|im_end|>")


def pieces(tokenizer: Any, ids: list[int]) -> list[bytes]:
    """The bytes of each token; special ones are written as they are."""
    alphabet = {char: number for number, char in bytes_by_character().items()}
    special = set(tokenizer.all_special_tokens)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return [token.encode() if token in special else bytes(alphabet[char] for char in token) for token in tokens]


def bytes_by_character() -> dict[int, str]:
    """The character that byte-level tokenizers write for each byte, by GPT-2's rule."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"), template=None)


@settings(deadline=None)
@given(text=TEXTS)
def test_a_character_is_in_the_token_with_its_first_byte(byte_level: Any, text: str) -> None:
    (encoded,) = TextEncoder(byte_level).encode([text])
    found = pieces(byte_level, encoded.ids.tolist())
    assert b"".join(found).decode() == text
    for character in range(len(text)):
        token, byte = encoded.token_at(character), len(text[:character].encode())
        assert sum(map(len, found[:token])) <= byte < sum(map(len, found[: token + 1]))


def test_the_tokenizer_need_not_keep_positions_of_byte_level_tokens(byte_level: Any) -> None:
    (encoded,) = TextEncoder(byte_level).encode(["What is 日本?"])
    assert encoded.ends is not None


def test_a_text_that_is_normalized_is_measured_by_the_tokenizer(byte_level: Any) -> None:
    backend = Tokenizer.from_str(byte_level.backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    composed, changed = encoder.encode(["caf\u00e9 ends", "cafe\u0301 ends"])
    assert composed.ends is not None
    assert changed.ends is None
    assert composed.ids.tolist() == changed.ids.tolist()
    assert changed.token_at(6) == composed.token_at(5)


def test_other_tokenizers_tell_positions_themselves(tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(["one", "two", "three", "?"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    (encoded,) = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=backend)).encode(["one  three two"])
    assert encoded.ends is None
    assert [encoded.token_at(character) for character in (0, 3, 5, 11)] == [0, 1, 1, 2]
