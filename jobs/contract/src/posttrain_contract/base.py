"""The base of every contract class: frozen, strict about unknown fields, camelCase outside and snake_case inside."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError


@dataclass(frozen=True)
class Rule:
    """One rule between fields, said twice: for the API server and for everyone who parses offline.

    The two halves must agree; ``tests/unit/operator/test_cel.py`` evaluates both over the same objects.
    """

    cel: str
    """The rule as a CEL expression over ``self``, where an absent field is absent (defaults are not written back)."""
    check: Callable[[Any], bool]
    """The rule as a predicate over the parsed model, where an absent field has its default."""
    message: str
    """What is wrong and what to do; the same text in the API server's answer and in ``posttrain validate``."""


class Model(BaseModel):
    """A frozen value with camelCase keys; unknown keys and broken rules are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    @cache
    def all_rules(cls) -> tuple[Rule, ...]:
        """The rules of this class and of its bases, base first."""
        return tuple(rule for base in reversed(cls.__mro__) for rule in base.__dict__.get("rules", ()))

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        broken = [rule.message for rule in type(self).all_rules() if not rule.check(self)]
        if broken:
            raise PydanticCustomError("rule", "{text}", {"text": "; ".join(broken)})
        return self

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Reads what a user wrote: keys by alias only, so that there is one way to spell a field.

        Types are as strict as the API server's: "8" is no integer and 1 is no boolean.
        Raises ``pydantic.ValidationError`` with every problem; ``problems`` turns it into paths and sentences.
        """
        # Strict reading of Python values would want tuples and models; strict reading of JSON takes lists and mappings.
        text = json.dumps(data, default=str)
        return cls.model_validate_json(text, strict=True, by_alias=True, by_name=False)

    def dump(self) -> dict[str, Any]:
        """Plain JSON values under camelCase keys, nulls included."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one field of an object."""

    path: tuple[str | int, ...]
    message: str
    kind: str = ""
    """Pydantic's error type, such as ``missing`` or ``extra_forbidden``."""

    @property
    def field(self) -> str:
        """The path as people write it, such as ``spec.items[0].name``."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".")


def problems(error: ValidationError, prefix: tuple[str | int, ...] = ()) -> list[Problem]:
    """Every problem of a failed parse, in the order of the fields."""
    found = error.errors(include_url=False)
    return [
        Problem((*prefix, *details["loc"]), _sentence(details), details["type"])
        for details in found
        if not _follows_from_an_item(details, found)
    ]


def _follows_from_an_item(details: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """A list counts as too short because an item of it is invalid, which is told already."""
    loc = details["loc"]
    return details["type"] == "too_short" and any(
        other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in found
    )


def _sentence(details: ErrorDetails) -> str:
    match details["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "required field is missing"
        case "rule":
            return details["msg"]
        case _:
            return f"{details['msg'][:1].lower()}{details['msg'][1:]}, found {_shown(details['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
