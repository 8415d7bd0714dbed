"""From a conversation to text, and to the parts of it that are the model's answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError

from posttrain_training.preparation.formats import Message, answer_numbers

Span = tuple[int, int]
"""Begin and end in characters."""

_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, IndexError)
"""What a template raises that does not like a conversation."""
_PROBES = (
    ("How are you?", "Fine, thanks."),
    ("2 + 2?\nShow it.", "  2 + 2 = 4\n\n#### 4"),
)


@dataclass(frozen=True)
class _Turn:
    """What a template puts around an answer: between the generation prompt and it, and after it."""

    lead: str
    tail: str


class Renderer:
    """Renders conversations by the chat template of a tokenizer.

    An answer's part begins where the generation prompt ends, since from there on the model writes, and reaches to the
    end of the assistant's turn. Where it is, is known from what the template puts around answers; else the beginnings
    of the conversation are rendered, and the whole must begin with each of them.
    """

    def __init__(self, tokenizer: Any, *, field: str) -> None:
        self._tokenizer = tokenizer
        self._field = field
        self._turn = self._probe()

    def texts(self, conversations: Sequence[tuple[str, Sequence[Message]]]) -> list[str]:
        """Conversations, each with the place where it was read, as text. Raises ``StageError`` (MODEL)."""
        chats = [list(messages) for _, messages in conversations]
        try:
            rendered: list[str] = self._tokenizer.apply_chat_template(chats, tokenize=False) if chats else []
        except _TEMPLATE_ERRORS:  # whose row it is, is found out one by one
            rendered = [self._text(messages, place) for place, messages in conversations]
        return rendered

    def answers(self, messages: Sequence[Message], text: str, place: str) -> list[Span]:
        """Where in the text of a conversation the assistant's answers are."""
        return self._find(messages, text) or self._measure(messages, text, place)

    def _text(self, messages: Sequence[Message], place: str, *, prompt: bool = False) -> str:
        """One conversation as text; with ``prompt`` it ends where the model goes on."""
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt
            )
        except _TEMPLATE_ERRORS as error:
            raise self._unusable(f"cannot render {place} ({error})") from error
        return rendered

    def _find(self, messages: Sequence[Message], text: str) -> list[Span]:
        """The answers where they stand word for word and with the usual text around them; none where not so."""
        if self._turn is None:
            return []
        spans: list[Span] = []
        position = 0
        for message in messages:
            begin = text.find(message["content"], position)
            if begin < 0:
                return []
            position = end = begin + len(message["content"])
            if message["role"] != "assistant":
                continue
            first = begin - len(self._turn.lead)
            position = end + len(self._turn.tail)
            if text[first:begin] != self._turn.lead or text[end:position] != self._turn.tail:
                return []
            spans.append((first, position))
        return spans if spans[-1:] and spans[-1][1] == len(text) else []

    def _measure(self, messages: Sequence[Message], text: str, place: str) -> list[Span]:
        """The answers by rendering the beginnings of the conversation."""
        spans = []
        for number in answer_numbers(messages):
            before = self._text(messages[:number], place, prompt=True) if number else ""
            after = self._text(messages[: number + 1], place)
            if not text.startswith(before) or not text.startswith(after):
                raise self._unusable(
                    f"renders the beginning of the conversation in {place} otherwise than the whole of it, so nobody "
                    "can tell which tokens are the answers"
                )
            if len(after) <= len(before):
                raise self._unusable(f"leaves out the answer in {place}, message {number + 1}")
            spans.append((len(before), len(after)))
        return spans

    def _probe(self) -> _Turn | None:
        """What surrounds the answers of the probes, when that is always the same."""
        turns = set()
        for question, answer in _PROBES:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            text, before = self._text(messages, "a conversation"), self._text(messages[:1], "a question", prompt=True)
            begin = text.find(answer, len(before))
            if not text.startswith(before) or begin < 0:
                return None
            turns.add(_Turn(text[len(before) : begin], text[begin + len(answer) :]))
        return turns.pop() if len(turns) == 1 else None

    def _unusable(self, what: str) -> StageError:
        return StageError(
            ExitCode.MODEL,
            "TemplateUnusable",
            f"{self._field}.template: the chat template {what}; take template: chatml, or loss: all",
        )
