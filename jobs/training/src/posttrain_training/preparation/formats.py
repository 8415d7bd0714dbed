"""From a record of any format to a conversation. Pure: no library is needed."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from posttrain_contract.examples import ExampleDataset, Format
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError

Message = dict[str, str]
"""``role`` and ``content``."""


@dataclass(frozen=True)
class MessageForm:
    """How a message is written in a list of messages."""

    keys: tuple[str, str]
    """Where its role and its text are."""
    roles: Mapping[str, str]
    """The roles by the names that they have there."""


_CHAT = MessageForm(
    keys=("role", "content"), roles=MappingProxyType({role: role for role in ("system", "user", "assistant", "tool")})
)
_SHAREGPT = MessageForm(
    keys=("from", "value"),
    roles=MappingProxyType(
        {
            "human": "user",
            "user": "user",
            "gpt": "assistant",
            "assistant": "assistant",
            "model": "assistant",
            "system": "system",
            "tool": "tool",
        }
    ),
)
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_ABSENT_MEANS_EMPTY = ("input", "system")


@dataclass(frozen=True)
class Demonstration:
    """A conversation whose answers are learned."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class PlainText:
    """Text that is learned as it is."""

    text: str


@dataclass(frozen=True)
class Pair:
    """A conversation with a better and a worse answer to its last message."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str


Example = Demonstration | PlainText | Pair


class Reader:
    """Reads records of one dataset."""

    def __init__(self, dataset: ExampleDataset, *, field: str) -> None:
        self._field = field
        self._columns = dataset.column_names()
        self._clean = _without_annotations if dataset.cleaning == "gsm8k" else _unchanged
        self._build = _BUILDERS[dataset.format]
        self._texts = [name for name in self._columns if name != "messages"]

    def read(self, record: Mapping[str, Any], place: str) -> Example:
        """The example in a record. Raises ``StageError`` (DATA) naming the column and the ``place`` of the row."""
        return self._build(self, record, place)

    def identity(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """What makes two rows the same: the values of all columns that are read."""
        return tuple(repr(record.get(column)) for column in self._columns.values())

    def text(self, record: Mapping[str, Any], name: str, place: str, *, empty: bool = False) -> str:
        """The text of a column; numbers become their text. With ``empty`` it may be missing or empty."""
        column = self._columns[name]
        if column not in record and name not in _ABSENT_MEANS_EMPTY:
            raise self._missing(record, name, place)
        value = record.get(column)
        if value is None and name in _ABSENT_MEANS_EMPTY:
            return ""
        if isinstance(value, float) and not math.isfinite(value):
            what = f"column {column!r} of {place} is {value}, which stands for no text; drop such rows"
            raise self._error("WrongType", name, what)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            what = f"column {column!r} of {place} is {type(value).__name__}, not text; drop or convert such rows"
            raise self._error("WrongType", name, what)
        if not value.strip() and not empty:
            raise self._error("EmptyText", name, f"column {column!r} of {place} is empty; drop such rows")
        return value

    def answer(self, record: Mapping[str, Any], name: str, place: str) -> str:
        """The text of a column that holds an answer, cleaned."""
        cleaned = self._clean(self.text(record, name, place))
        if not cleaned.strip():
            what = f"column {self._columns[name]!r} of {place} is empty once it is cleaned; drop such rows"
            raise self._error("EmptyText", name, what)
        return cleaned

    def conversation(self, record: Mapping[str, Any], place: str, name: str, form: MessageForm) -> list[Message]:
        """The conversation in a column of messages, which ends with the assistant's answer."""
        found = self.messages(record, place, name, form)
        if found[-1]["role"] != "assistant":
            what = f"the last message of {place} is of {found[-1]['role']!r}; it must be the assistant's answer"
            raise self._error("NoAnswer", name, what)
        return found

    def messages(self, record: Mapping[str, Any], place: str, name: str, form: MessageForm) -> list[Message]:
        """The messages in a column."""
        column = self._columns[name]
        if column not in record:
            raise self._missing(record, name, place)
        value = record[column]
        if not isinstance(value, list) or not value:
            what = f"column {column!r} of {place} is no list of messages; each message is {{{', '.join(form.keys)}}}"
            raise self._error("WrongType", name, what)
        return [
            self._message(item, f"{place}, message {number}", name, form) for number, item in enumerate(value, start=1)
        ]

    def _message(self, item: object, place: str, name: str, form: MessageForm) -> Message:
        role, content = (item.get(key) for key in form.keys) if isinstance(item, Mapping) else (None, None)
        if not isinstance(content, str) or not isinstance(role, str):
            what = f"{place} has no text under {form.keys[0]!r} and {form.keys[1]!r}"
            raise self._error("WrongType", name, what)
        if role not in form.roles:
            raise self._error("UnknownRole", name, f"{place} is of {role!r}; the roles are {', '.join(form.roles)}")
        if form.roles[role] != "assistant":
            return {"role": form.roles[role], "content": content}
        cleaned = self._clean(content)
        if not cleaned.strip():
            raise self._error("EmptyText", name, f"{place}, an answer, is empty; drop such rows")
        return {"role": "assistant", "content": cleaned}

    def pair_of_conversations(self, record: Mapping[str, Any], place: str) -> Pair:
        """A pair whose columns are lists of messages: two answers to one conversation.

        What was asked is the beginning of both lists, or stands in the column of the prompt.
        """
        chosen, rejected = (self.conversation(record, place, name, _CHAT) for name in ("chosen", "rejected"))
        asked = chosen[:-1]
        if asked != rejected[:-1]:
            what = (
                f"column {self._columns['rejected']!r} of {place} answers another conversation than column "
                f"{self._columns['chosen']!r}: all messages but the last one must be the same; drop such rows"
            )
            raise self._error("DifferentPrompts", "rejected", what)
        if not asked:
            asked = self._asked_beside(record, place)
        opening = self.opening(record, place)
        return Pair((*opening, *asked), chosen[-1]["content"], rejected[-1]["content"])

    def _asked_beside(self, record: Mapping[str, Any], place: str) -> list[Message]:
        """What stands in the column of the prompt, as text or as messages."""
        if isinstance(record.get(self._columns["prompt"]), list):
            return self.messages(record, place, "prompt", _CHAT)
        return [{"role": "user", "content": self.text(record, "prompt", place)}]

    def is_list(self, record: Mapping[str, Any], *names: str) -> bool:
        """Whether one of the columns holds a list, so that all of them should."""
        return any(isinstance(record.get(self._columns[name]), list) for name in names)

    def opening(self, record: Mapping[str, Any], place: str) -> list[Message]:
        """The system message, if there is one."""
        if "system" not in self._columns:
            return []
        text = self.text(record, "system", place, empty=True)
        return [{"role": "system", "content": text}] if text.strip() else []

    def question(self, record: Mapping[str, Any], place: str) -> list[Message]:
        """Everything before the answer."""
        prompt = self.text(record, "prompt", place)
        if "input" in self._columns and (given := self.text(record, "input", place, empty=True)).strip():
            prompt = f"{prompt}\n\n{given}"
        return [*self.opening(record, place), {"role": "user", "content": prompt}]

    def _missing(self, record: Mapping[str, Any], name: str, place: str) -> StageError:
        there = ", ".join(sorted(map(str, record)))
        return self._error("MissingColumn", name, f"{place} has no column {self._columns[name]!r}; it has {there}")

    def _error(self, reason: str, name: str, message: str) -> StageError:
        return StageError(ExitCode.DATA, reason, f"{self._field}.columns.{name}: {message}")


def _unchanged(text: str) -> str:
    return text


def _without_annotations(text: str) -> str:
    return _CALCULATOR.sub("", text)


def _single_turn(reader: Reader, record: Mapping[str, Any], place: str) -> Demonstration:
    question = reader.question(record, place)
    return Demonstration((*question, {"role": "assistant", "content": reader.answer(record, "completion", place)}))


def _chat(reader: Reader, record: Mapping[str, Any], place: str) -> Demonstration:
    return Demonstration((*reader.opening(record, place), *reader.conversation(record, place, "messages", _CHAT)))


def _sharegpt(reader: Reader, record: Mapping[str, Any], place: str) -> Demonstration:
    return Demonstration((*reader.opening(record, place), *reader.conversation(record, place, "messages", _SHAREGPT)))


def _plain(reader: Reader, record: Mapping[str, Any], place: str) -> PlainText:
    return PlainText(reader.answer(record, "text", place))


def _pair(reader: Reader, record: Mapping[str, Any], place: str) -> Pair:
    if reader.is_list(record, "chosen", "rejected"):
        return reader.pair_of_conversations(record, place)
    question = tuple(reader.question(record, place))
    chosen, rejected = (reader.answer(record, name, place) for name in ("chosen", "rejected"))
    return Pair(question, chosen, rejected)


_BUILDERS: Mapping[Format, Callable[[Reader, Mapping[str, Any], str], Example]] = MappingProxyType(
    {
        "prompt-completion": _single_turn,
        "question-answer": _single_turn,
        "alpaca": _single_turn,
        "dolly": _single_turn,
        "wizardlm": _single_turn,
        "messages": _chat,
        "sharegpt": _sharegpt,
        "text": _plain,
        "preference": _pair,
    }
)


def answer_numbers(messages: Sequence[Message]) -> list[int]:
    """The positions of the assistant's messages."""
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]
