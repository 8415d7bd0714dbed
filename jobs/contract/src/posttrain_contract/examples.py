"""Datasets of examples to learn from: their formats, and which columns those are read from."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import Column, Input

Format = Literal["prompt-completion", "preference"]

COLUMNS: Final[Mapping[Format, Mapping[str, str]]] = MappingProxyType(
    {
        "prompt-completion": {"prompt": "prompt", "completion": "completion"},
        "preference": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }
)
"""The columns that each format is read from: what it is, and its usual name."""


class ExampleColumns(Model):
    """Where a dataset has other names than usual; the format says which columns there are."""

    prompt: Column | None = Field(default=None, description="What the model is given; absent: prompt.")
    completion: Column | None = Field(default=None, description="What the model learns to answer; absent: completion.")
    chosen: Column | None = Field(default=None, description="The better answer; absent: chosen.")
    rejected: Column | None = Field(default=None, description="The worse answer; absent: rejected.")


def _formats_with(column: str) -> str:
    return ", ".join(f"'{name}'" for name, columns in COLUMNS.items() if column in columns)


class ExampleDataset(Input):
    """Examples to learn from."""

    format: Format = Field(
        default="prompt-completion",
        description="What a row is: prompt-completion for method sft, preference (prompt, chosen, rejected) for dpo.",
    )
    columns: ExampleColumns = Field(default=ExampleColumns(), description="Names of columns that differ from usual.")
    samples: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Read only the first so many rows; absent: all."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=" && ".join(
                f"(!has(self.columns) || !has(self.columns.{column})"
                f" || (has(self.format) ? self.format : 'prompt-completion') in [{_formats_with(column)}])"
                for column in ExampleColumns.model_fields
            ),
            check=lambda self: not set(self.columns.model_dump(exclude_none=True)) - set(COLUMNS[self.format]),
            message="columns must name only those of the format: "
            + "; ".join(f"{name} has {', '.join(columns)}" for name, columns in COLUMNS.items()),
        ),
    )

    def column_names(self) -> dict[str, str]:
        """The columns to read: what each is, and its name in the files."""
        named = {column: name for column, name in self.columns.model_dump().items() if name is not None}
        return {**COLUMNS[self.format], **named}
