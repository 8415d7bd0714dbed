"""The final answer of a text, and whether it is the right one.

Every format is strict: an answer counts only where the text marks it, and only when it is one. So a list of guesses
earns nothing, and ``18``, ``18.00`` and ``$18`` are equal.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from posttrain_contract.inputs import AnswerFormat

from posttrain_runtime import choices, latex, numbers
from posttrain_runtime.patterns import PatternReader

Value = Fraction | str
_MARK = "####"
_THOUGHT = "</think>"


def extract(text: str) -> Fraction | None:
    """The marked final answer by the conventions of GSM8K, or None when there is none or more than one number.

    It is after the last ``####``, or else in the last ``\\boxed{}``.
    """
    text = _after_thought(unicodedata.normalize("NFKC", text).translate(numbers.MINUS))
    if _MARK in text:
        lines = text.rpartition(_MARK)[2].splitlines()
        return numbers.only_number(lines[0]) if lines else None
    boxed = latex.last_boxed(text)
    return None if boxed is None else numbers.only_number(latex.plain(boxed))


def gold(text: str) -> Fraction | None:
    """The number of a gold answer: of its marked final answer, or of the whole text when that is just a number."""
    if _MARK in text or latex.BOX in text:
        return extract(text)
    return numbers.only_number(unicodedata.normalize("NFKC", text).translate(numbers.MINUS))


@dataclass(frozen=True)
class AnswerReader:
    """How answers of one format are read. Equal values are equal answers."""

    extract: Callable[[str], Value | None]
    """The final answer of a completion, or None."""
    gold: Callable[[str], Value | None]
    """The value of a gold answer, or None when it cannot be read."""
    wants: str
    """What a gold answer must be, for messages."""

    def matches(self, completion: str, answer: str) -> bool:
        """Whether a completion ends with the gold answer."""
        found = self.extract(completion)
        return found is not None and found == self.gold(answer)


def reader(answer: AnswerFormat, pattern: str | None = None) -> AnswerReader:
    """The reader of a format; ``pattern`` goes with ``regex`` alone. Raises ``StageError`` for an unusable pattern."""
    match answer:
        case "gsm8k":
            return AnswerReader(extract, gold, "one number")
        case "boxed":
            return AnswerReader(_boxed, _boxed_gold, "an answer in LaTeX")
        case "choice":
            return AnswerReader(lambda text: choices.extract(_after_thought(text)), choices.gold, "one letter, A to J")
        case "regex":
            return _by_pattern(PatternReader(pattern or ""))


def _after_thought(text: str) -> str:
    return text.rpartition(_THOUGHT)[2]


def _boxed(text: str) -> Value | None:
    boxed = latex.last_boxed(_after_thought(text))
    return None if boxed is None else latex.canonical(boxed)


def _boxed_gold(text: str) -> Value | None:
    return _boxed(text) if latex.BOX in text else latex.canonical(text)


def _by_pattern(pattern: PatternReader) -> AnswerReader:
    """What the pattern catches, compared as numbers where both are such; a gold answer may be the bare answer."""

    def value(text: str | None) -> Value | None:
        number = None if text is None else numbers.whole_number(text)
        return text if number is None else number

    return AnswerReader(
        lambda text: value(pattern.extract(_after_thought(text))),
        lambda text: value(pattern.extract(text) or text.strip() or None),
        "some text",
    )
