"""LaTeX answers: where they are, and when two of them are the same.

This is no algebra: two answers are the same when they are the same number, or the same text once spelling that means
nothing is gone. ``2x`` and ``x+x`` are different answers.
"""

import re
from fractions import Fraction

from posttrain_runtime import numbers

BOX = "\\boxed{"
_BRACES = re.compile(r"\\boxed\{|[{}]")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{(-?\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=\S)\s*\\(?:text|mathrm|mbox)\s*\{[^{}\d]*\}\s*$")
_SPACING = re.compile(r"\\[,;:! ]|~")
_MEANINGLESS = re.compile(r"\\(?:left|right|displaystyle|limits|[,;:! ])(?![a-zA-Z])|[~\s]")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac(?:\{([^{}]*)\}|(\d))(?:\{([^{}]*)\}|(\d))")
_SHORT_ROOT = re.compile(r"\\sqrt(\d)")
_SINGLE = re.compile(r"([\^_])\{(\w)\}")


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{...}`` whose braces balance."""
    open_braces: list[re.Match[str]] = []
    last, content = -1, None
    for brace in _BRACES.finditer(text):
        if brace[0] != "}":
            open_braces.append(brace)
        elif open_braces and (opening := open_braces.pop())[0] == BOX and opening.start() > last:
            last, content = opening.start(), text[opening.end() : brace.start()]
    return content


def plain(latex: str) -> str:
    """The simple LaTeX of an answer as text."""
    latex = _FRACTION.sub(_ratio, latex.replace("{,}", ","))
    latex = _WORDS.sub(r" \1 ", latex)
    return _SPACING.sub("", latex).replace("{", "").replace("}", "")


def _ratio(match: re.Match[str]) -> str:
    """``a/b``, apart from a number before it: ``1\\frac{1}{2}`` is not eleven halves."""
    before = match.string[match.start() - 1 : match.start()]
    return f"{' ' if before.isdigit() else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def canonical(latex: str) -> Fraction | str | None:
    """The value of a box: a number where it is one, with or without a unit in ``\\text``, else its text; None if empty.

    Equal values are equal answers.
    """
    latex = latex.translate(numbers.MINUS).strip().removeprefix("$").removesuffix("$").strip()
    number = numbers.whole_number(plain(_UNIT.sub("", latex)))
    return number if number is not None else _normal(latex) or None


def _normal(latex: str) -> str:
    text = _WORDS.sub(r"\1", latex.replace("{,}", ",").replace("\\$", "$").replace("\\%", "%"))
    text = _MEANINGLESS.sub("", text)
    text = _SHORT_FRACTION.sub(lambda m: f"\\frac{{{m[1] or m[2] or ''}}}{{{m[3] or m[4] or ''}}}", text)
    text = _SINGLE.sub(r"\1\2", _SHORT_ROOT.sub(r"\\sqrt{\1}", text))
    return text.removesuffix(".")
