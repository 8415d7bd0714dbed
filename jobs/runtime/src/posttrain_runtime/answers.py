"""The final answer of a text as an exact number, by the conventions of GSM8K.

The rule is strict: an answer counts only where the text marks it, after the last ``####`` or in the last ``\\boxed{}``,
and only when it is one number. So a list of guesses earns nothing, and ``18``, ``18.00`` and ``$18`` are equal.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from posttrain_contract.inputs import AnswerFormat

_MARK = "####"
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-"})
_NUMBER = re.compile(
    r"""
    (?<![\w.,/])                                  # not inside a word or a number
    (?P<sign>[-+]?)
    (?P<whole>\d{1,3}(?:,\d{3})+ | \d{1,3}(?:\ \d{3})+ | \d+ | (?=\.\d))
    (?P<decimals>\.\d+)?
    (?:/(?P<divisor>\d+))?
    (?![\d/]|[.,]\d)                              # nothing of a number is left over
    """,
    re.VERBOSE,
)
_CURRENCY = re.compile(r"([-+]?)\s*[$\u00a3\u20ac\u00a5]\s*([-+]?)(?=[\d.])")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{(-?\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,;:! ]|~")


def extract(text: str) -> Fraction | None:
    """The marked final answer of a text, or None when it has none or more than one number."""
    text = unicodedata.normalize("NFKC", text).translate(_MINUS).rpartition("</think>")[2]
    if _MARK in text:
        lines = text.rpartition(_MARK)[2].splitlines()
        return _only_number(lines[0]) if lines else None
    boxed = _last_boxed(text)
    return None if boxed is None else _only_number(_plain(boxed))


def gold(text: str) -> Fraction | None:
    """The number of a gold answer: of its marked final answer, or of the whole text when that is just a number."""
    if _MARK in text or "\\boxed" in text:
        return extract(text)
    return _only_number(unicodedata.normalize("NFKC", text).translate(_MINUS))


@dataclass(frozen=True)
class AnswerReader:
    """How answers of one format are read."""

    extract: Callable[[str], Fraction | None]
    """The final answer of a completion, or None."""
    gold: Callable[[str], Fraction | None]
    """The value of a gold answer, or None when it cannot be read."""

    def matches(self, completion: str, answer: str) -> bool:
        """Whether a completion ends with the gold answer."""
        found = self.extract(completion)
        return found is not None and found == self.gold(answer)


READERS: Mapping[AnswerFormat, AnswerReader] = MappingProxyType({"gsm8k": AnswerReader(extract, gold)})


def _only_number(text: str) -> Fraction | None:
    text = _CURRENCY.sub(r"\1\2", text.replace("**", "").replace("\\$", "$").replace("\\%", "%"))
    found = list(_NUMBER.finditer(text))
    if len(found) != 1 or _has_stray_digits(text, found[0]):
        return None
    return _value(found[0])


def _has_stray_digits(text: str, match: re.Match[str]) -> bool:
    """Whether digits are outside the one number, such as the 5 of ``18,5``."""
    return any(character.isdigit() for character in text[: match.start()] + text[match.end() :])


def _value(match: re.Match[str]) -> Fraction | None:
    digits = match["whole"].replace(",", "").replace(" ", "")
    value = Fraction(f"{match['sign']}{digits or '0'}{match['decimals'] or ''}")
    divisor = int(match["divisor"] or 1)
    return value / divisor if divisor else None


def _last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{...}`` whose braces balance."""
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) >= 0:
        opening = start + len("\\boxed{")
        depth = 1
        for position in range(opening, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[opening:position]
        end = start
    return None


def _plain(latex: str) -> str:
    """The simple LaTeX of an answer as text."""
    latex = _FRACTION.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", latex.replace("{,}", ","))
    latex = _TEXT.sub(r" \1 ", latex)
    return _SPACING.sub("", latex).replace("{", "").replace("}", "")
