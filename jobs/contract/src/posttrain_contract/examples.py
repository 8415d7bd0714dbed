"""Datasets of examples to learn from: their formats, and which columns those are read from."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import Column, Input

Format = Literal[
    "prompt-completion",
    "question-answer",
    "messages",
    "sharegpt",
    "alpaca",
    "dolly",
    "wizardlm",
    "text",
    "preference",
]
COLUMNS: Final[Mapping[Format, Mapping[str, str]]] = MappingProxyType(
    {
        "prompt-completion": {"prompt": "prompt", "completion": "completion"},
        "question-answer": {"prompt": "question", "completion": "answer"},
        "messages": {"messages": "messages"},
        "sharegpt": {"messages": "conversations"},
        "alpaca": {"prompt": "instruction", "input": "input", "completion": "output"},
        "dolly": {"prompt": "instruction", "input": "context", "completion": "response"},
        "wizardlm": {"prompt": "instruction", "completion": "output"},
        "text": {"text": "text"},
        "preference": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }
)
"""The columns that each format is read from: what it is, and its usual name."""
Template = Literal["model", "chatml", "llama2", "alpaca"]
"""What turns a conversation into text: the model's own chat template, or one of ours."""


class ExampleColumns(Model):
    """Where a dataset has other names than its format's usual ones; the format says which columns there are."""

    prompt: Column | None = Field(
        default=None, description="What the model is given; absent: the format's name for it."
    )
    input: Column | None = Field(
        default=None, description="What the prompt is about, added below it; absent: the format's name for it."
    )
    completion: Column | None = Field(
        default=None, description="What the model learns to answer; absent: the format's name for it."
    )
    messages: Column | None = Field(
        default=None, description="The list of messages; absent: messages, or conversations with format sharegpt."
    )
    text: Column | None = Field(default=None, description="Plain text; absent: text.")
    chosen: Column | None = Field(default=None, description="The better answer; absent: chosen.")
    rejected: Column | None = Field(default=None, description="The worse answer; absent: rejected.")
    system: Column | None = Field(
        default=None, description="A system message before the conversation, any format but text; absent: none."
    )


def _formats_with(column: str) -> str:
    names = [name for name, columns in COLUMNS.items() if column in columns or (column == "system" and name != "text")]
    return ", ".join(f"'{name}'" for name in names)


class ExampleDataset(Input):
    """Examples to learn from, in .jsonl, .json, .csv or .parquet files."""

    format: Format = Field(
        default="prompt-completion",
        description="What a row is. For method sft: prompt-completion; question-answer; messages (role, content; some "
        "call it chatml); sharegpt (from, value); alpaca (instruction, input, output), dolly (instruction, context, "
        "response) or wizardlm (instruction, output); text. For method dpo: preference (prompt, chosen, rejected; or "
        "chosen and rejected as lists of messages that differ in the last one).",
    )
    columns: ExampleColumns = Field(default=ExampleColumns(), description="Names of columns that differ from usual.")
    template: Template = Field(
        default="model",
        description="What turns a conversation into text: the model's own chat template, or chatml, llama2 or alpaca, "
        "which the published model then has.",
    )
    loss: Literal["answers", "all"] = Field(
        default="answers", description="Tokens that are learned: those of the model's answers, or all."
    )
    samples: int | None = Field(default=None, ge=1, le=1_000_000_000, description="Use so many rows; absent: all.")
    shuffle_seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Choose the samples, and those for validation, at random with this seed; absent: the first and "
        "the last ones.",
    )
    validation: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the rows that is set aside for evaluation.perplexity and not trained on, at least one "
        "row; absent: none. With method sft.",
    )
    deduplicate: bool = Field(default=False, description="Leave out rows whose columns equal those of an earlier one.")
    cleaning: Literal["gsm8k"] | None = Field(
        default=None, description="gsm8k: remove calculator annotations such as <<3*4=12>>; absent: nothing is changed."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=" && ".join(
                f"(!has(self.columns) || !has(self.columns.{column})"
                f" || (has(self.format) ? self.format : 'prompt-completion') in [{_formats_with(column)}])"
                for column in ExampleColumns.model_fields
            ),
            check=lambda self: not set(self.column_names()) - {*COLUMNS[self.format], *_optional(self.format)},
            message="columns must name only those of the format: "
            + "; ".join(f"{name} has {', '.join(columns)}" for name, columns in COLUMNS.items())
            + "; all but text may have system",
        ),
        Rule(
            cel="!has(self.format) || self.format != 'text' || !has(self.template) || self.template == 'model'",
            check=lambda self: self.format != "text" or self.template == "model",
            message="template has no use with format: text, which is taken as it is",
        ),
    )

    def column_names(self) -> dict[str, str]:
        """The columns to read: what each is, and its name in the files."""
        named = {column: name for column, name in self.columns.model_dump().items() if name is not None}
        return {**COLUMNS[self.format], **named}


def _optional(form: Format) -> tuple[str, ...]:
    return () if form == "text" else ("system",)
