"""The letter that answers a multiple-choice question, A to J, as models write it.

In this order: the last ``\\boxed{B}``; the last sentence that says ``answer is B`` or ``Answer: B``; a last line that
is the letter alone, or begins with it as an option does (``B) Paris``). Where the place that counts names two letters,
there is no answer, and a letter in the middle of a sentence is none.
"""

import re
import unicodedata

from posttrain_runtime import latex

_SPACE = r"\s{0,8}"
"""White space, of a bounded length: unbounded runs side by side would take quadratic time."""
_LETTER = re.compile(rf"[({{\[]?{_SPACE}([A-Ja-j]){_SPACE}[)}}\]]?{_SPACE}(?:[.:,、。)](?:\s.*)?)?", re.DOTALL)
_LONE = re.compile(rf"(?:[(\[]{_SPACE}([A-Ja-j]){_SPACE}[)\]][.。]?|([A-J])[.。)]?)")
_OPTION = re.compile(r"(?:\(([A-J])\)|([A-J])[.):])\s+\S.*")
_SAID = re.compile(
    rf"""
    (?:
      (?i:\b(?:answer|choice|option)(?:{_SPACE}[:=]|\s{{1,8}}(?:is|would\ be|must\ be|should\ be)\b))
      | (?:答え|正解|解答|回答)(?:は|:)
    )
    {_SPACE}:?{_SPACE}(?i:\b(?:option|choice|letter)\b{_SPACE})?
    (?:
      [(\[]{_SPACE}(?P<inner>[A-Ja-j]){_SPACE}[)\]]
      | (?P<bare>[A-J])(?![A-Za-z0-9_'+-])
      | (?P<small>[b-hj])(?=\s*(?:\.|$))          # a and i are words
    )
    (?=(?P<rest>[^\n]{{0,80}}))                     # looked at only: a line may say it twice
    """,
    re.VERBOSE | re.MULTILINE,
)
_ANOTHER = re.compile(
    rf"{_SPACE}(?:,?{_SPACE}(?:(?i:or|and)\b)|[,/&]|または|か|と)?{_SPACE}(?i:option\s)?"
    r"(?:[(\[][A-Ja-j][)\]]|[A-J](?![A-Za-z0-9_']))"
)
_SENTENCE_GOES_ON = re.compile(r"\s+(?!(?:because|since|as|for|which|that|due|with)\b)[a-z]")
_MARKDOWN = re.compile(r"\*\*|__|`|\$|\\(?:text|textbf|mathrm|mathbf|mbox)\b")


def extract(text: str) -> str | None:
    """The letter that a completion answers with, in upper case, or None."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    if (boxed := latex.last_boxed(text)) is not None:
        return _inside(boxed)
    text = _MARKDOWN.sub("", text)
    said = [_said(match) for match in _SAID.finditer(text) if _is_statement(match)]
    if said:
        return said[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _of_line(lines) if lines else None


def gold(text: str) -> str | None:
    """The letter of a gold answer, in either case, alone or as a completion would give it."""
    text = text.strip()
    return text.upper() if len(text) == 1 and text.upper() in "ABCDEFGHIJ" else extract(text)


def _inside(boxed: str) -> str | None:
    content = _MARKDOWN.sub("", boxed).strip().strip("{}").strip()
    match = _LETTER.fullmatch(content)
    if match is None or _ANOTHER.match(content[match.end(1) :].lstrip(")]}.")):
        return None
    return match[1].upper()


def _is_statement(match: re.Match[str]) -> bool:
    """Whether the letter is an answer and no word: "the answer is A matter of taste" names none."""
    return match["bare"] not in ("A", "I") or _SENTENCE_GOES_ON.match(match["rest"]) is None


def _said(match: re.Match[str]) -> str | None:
    letter = match["inner"] or match["bare"] or match["small"]
    return None if _ANOTHER.match(match["rest"]) else letter.upper()


def _of_line(lines: list[str]) -> str | None:
    """The letter of the last line, unless several lines begin like options: then the question was repeated."""
    if (lone := _LONE.fullmatch(lines[-1])) is not None:
        return next(letter for letter in lone.groups() if letter).upper()
    options = [match for line in lines if (match := _OPTION.fullmatch(line))]
    if len(options) != 1 or _OPTION.fullmatch(lines[-1]) is None:
        return None
    return options[0][1] or options[0][2]
