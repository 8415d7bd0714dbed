"""YAML as plain JSON values that remember the line and column they came from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path = tuple[str | int, ...]
"""The way from a document to a value in it: keys and list indices."""

MAX_VALUES = 100_000
"""Values of one document with its aliases written out; more is taken for an attack or an accident."""
MAX_DEPTH = 100
"""Levels of nesting."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, and what to do about it."""

    position: Position
    message: str
    field: str = ""
    """The path as people write it, such as ``spec.items[0].name``; empty where the file itself is wrong."""

    def __str__(self) -> str:
        return f"{self.position}: {self.field + ': ' if self.field else ''}{self.message}"


@dataclass(frozen=True)
class Document:
    """One YAML document."""

    value: Any
    """Plain values as JSON has them: dict with string keys, list, str, int, float, bool, None."""
    positions: Mapping[Path, Position]
    """Where each key and each list item stands; the empty path is the document's first value."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with the YAML itself, such as a key that is there twice."""

    def position(self, path: Path) -> Position:
        """Where a field stands; for a field that is missing, where its parent stands."""
        while path not in self.positions:
            path = path[:-1]
        return self.positions[path]


def read_documents(text: str, file: str) -> Iterator[Document]:
    """The documents of a text; empty ones are left out.

    ``file`` is the name that positions carry. A syntax error becomes a document with a finding and no value, and ends
    the reading, because what follows it cannot be told apart.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    try:
        for node in yaml.compose_all(text):
            if node is not None:
                document = _build(yaml, node, file)
                if document.value is not None or document.findings:
                    yield document
    except YAMLError as error:
        position, message = _syntax_error(error, file)
        yield Document(None, {(): position}, (Finding(position, message),))


def _syntax_error(error: YAMLError, file: str) -> tuple[Position, str]:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
        if isinstance(error, MaxDepthExceededError):
            return position, f"nested more than {MAX_DEPTH} levels deep"
        context = f" {error.context}" if error.context else ""
        return position, f"not valid YAML: {error.problem or 'syntax error'}{context}"
    first_line = str(error).strip().splitlines()[0]
    return Position(file, 1, 1), f"not valid YAML: {first_line}"


def _build(yaml: YAML, root: Node, file: str) -> Document:
    builder = _Builder(yaml, file)
    try:
        value = builder.value(root, ())
    except _RefusedError as refused:
        finding = Finding(builder.mark(refused.node), str(refused))
        return Document(None, {(): builder.mark(root)}, (*builder.findings, finding))
    return Document(value, {(): builder.mark(root), **builder.positions}, tuple(builder.findings))


class _RefusedError(Exception):
    """A document that is not built, because of this node."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node


@dataclass
class _Builder:
    """Turns the nodes of one document into values; aliases are written out, within bounds."""

    yaml: YAML
    file: str
    positions: dict[Path, Position] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    ancestors: set[int] = field(default_factory=set)

    def mark(self, node: Node) -> Position:
        return Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def value(self, node: Node, path: Path) -> Any:
        self._account(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self.ancestors:
            raise _RefusedError(node, "this value contains itself through an alias")
        self.ancestors.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, MappingNode) else self._sequence(node, path)
        finally:
            self.ancestors.discard(id(node))

    def _account(self, node: Node) -> None:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _RefusedError(
                node, f"the document holds more than {MAX_VALUES:,} values with its aliases written out; use fewer"
            )

    def _sequence(self, node: Node, path: Path) -> list[Any]:
        result = []
        for index, item in enumerate(node.value):
            self.positions[(*path, index)] = self.mark(item)
            result.append(self.value(item, (*path, index)))
        return result

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, item, own in self._entries(node):
            name = self._key(key)
            place = (*path, name)
            if name not in result:
                self.positions[place] = self.mark(key)
                result[name] = self.value(item, place)
            elif own:
                message = f"this key is here twice, first in line {self.positions[place].line}; keep one"
                self.findings.append(Finding(self.mark(key), message, field_name(place)))
        return result

    def _entries(self, node: MappingNode) -> Iterator[tuple[Node, Node, bool]]:
        """Keys and values, the mapping's own first and then those that it merges (``<<``), which do not overrule."""
        merged: list[Node] = []
        for key, item in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += item.value if isinstance(item, SequenceNode) else [item]
            else:
                yield key, item, True
        for other in merged:
            if not isinstance(other, MappingNode) or id(other) in self.ancestors:
                raise _RefusedError(other, "<< must be followed by aliases of other mappings")
            self.ancestors.add(id(other))
            for key, item, _ in self._entries(other):
                self._account(key)
                yield key, item, False
            self.ancestors.discard(id(other))

    def _key(self, node: Node) -> str:
        """The key as text: JSON has no other keys, and ``on`` or ``1`` are meant as they are written."""
        if not isinstance(node, ScalarNode):
            raise _RefusedError(node, "a key must be a plain word, not a list or a mapping")
        return str(node.value)

    def _scalar(self, node: ScalarNode) -> Any:
        constructor = self.yaml.constructor
        try:
            match str(node.tag).removeprefix("tag:yaml.org,2002:"):
                case "null":
                    return None
                case "bool":
                    return constructor.construct_yaml_bool(node)
                case "int":
                    return constructor.construct_yaml_int(node)
                case "float":
                    return constructor.construct_yaml_float(node)
                case _:  # a date too is text to Kubernetes
                    return node.value
        except (ValueError, KeyError) as error:
            raise _RefusedError(node, f"{node.value!r} is not a value of type {node.tag}") from error


def field_name(path: Path) -> str:
    """The path as people write it, such as ``spec.items[0].name``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
