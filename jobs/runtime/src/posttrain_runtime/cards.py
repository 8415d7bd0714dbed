"""What the README.md of a model and the one of a repository that is made from it have alike. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from posttrain_contract.artifact import InputEntry

README: Final = "README.md"
MADE_FROM: Final = "Made from"
FIGURES: Final = "Figures of the run that made it"
_LOCAL: Final = "file://"


def table(heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a section that is one table; none without rows."""
    lines = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    if not lines:
        return []
    return [f"## {heading}", "", f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |", *lines, ""]


def lineage(inputs: Mapping[str, InputEntry]) -> list[str]:
    """The section that says what something was made from."""
    rows = [(name, _place(entry.uri), f"`{entry.digest}`" if entry.digest else "") for name, entry in inputs.items()]
    return table(MADE_FROM, ("what", "where", "SHA-256 of the artifact"), rows)


def figures(metrics: Mapping[str, float]) -> list[str]:
    """The section of the final figures of a run."""
    return table(FIGURES, ("figure", "value"), [(name, f"{value:g}") for name, value in metrics.items()])


def sections(text: str) -> dict[str, str]:
    """The sections of a README.md by their headings; what comes before the first one is none."""
    _, *parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return {part.partition("\n")[0].removeprefix("## ").strip(): part.strip() for part in parts}


def _place(uri: str) -> str:
    """Where it was read; of somebody's own disk only the last part, since cards are for others to read."""
    if uri.startswith(_LOCAL):
        return f"`{uri.rstrip('/').rpartition('/')[2]}`, a local file"
    return f"`{uri}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
