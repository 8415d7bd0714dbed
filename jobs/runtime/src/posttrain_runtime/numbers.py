"""Exact numbers as models write them: ``18``, ``18.00``, ``$18``, ``36/2`` and ``1,234``."""

import re
from fractions import Fraction

MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-"})
"""The characters that stand for a minus sign."""
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
_CURRENCY = re.compile(r"([-+]?)\s{0,4}[$\u00a3\u20ac\u00a5]\s{0,4}([-+]?)(?=[\d.])")


def only_number(text: str) -> Fraction | None:
    """The one number in a text, whatever words are around it; None when there is none or more than one."""
    text = _readable(text)
    found = list(_NUMBER.finditer(text))
    if len(found) != 1 or _has_stray_digits(text, found[0]):
        return None
    return _value(found[0])


def whole_number(text: str) -> Fraction | None:
    """The number that a text is, alone or with a percent sign or a full stop; None when it says anything else."""
    text = _readable(text).strip().rstrip(".%").rstrip()
    found = _NUMBER.fullmatch(text)
    return None if found is None else _value(found)


def _readable(text: str) -> str:
    return _CURRENCY.sub(r"\1\2", text.replace("**", "").replace("\\$", "$").replace("\\%", "%"))


def _has_stray_digits(text: str, match: re.Match[str]) -> bool:
    """Whether digits are outside the one number, such as the 5 of ``18,5``."""
    return any(character.isdigit() for character in text[: match.start()] + text[match.end() :])


_LONGEST = 1000
"""Characters of a number: Python refuses to read much longer ones, and no answer is one."""


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _LONGEST:
        return None
    digits = match["whole"].replace(",", "").replace(" ", "")
    value = Fraction(f"{match['sign']}{digits or '0'}{match['decimals'] or ''}")
    divisor = int(match["divisor"] or 1)
    return value / divisor if divisor else None
