"""YAML with positions: what a value is, where it stands, and what is refused."""

from typing import Any

import pytest
from posttrain.documents import Document, read_documents


def read(text: str) -> Document:
    (document,) = read_documents(text, "f.yaml")
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2e-4", {"a": 2e-4}),
        ("a: 0x10", {"a": 16}),
        ("a: true\nb: yes\nc: 'true'", {"a": True, "b": "yes", "c": "true"}),
        ("a: ~\nb:", {"a": None, "b": None}),
        ("a: 2026-05-01", {"a": "2026-05-01"}),
        ("1: x\non: y", {"1": "x", "on": "y"}),
        ('{"a": [1, {"b": "c"}]}', {"a": [1, {"b": "c"}]}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ],
)
def test_values_are_those_of_json(text: str, value: Any) -> None:
    assert read(text).value == value


def test_every_field_knows_its_line_and_column() -> None:
    document = read("a:\n  b: 1\n  c: [2, {d: 3}]\n")
    assert str(document.position(("a", "b"))) == "f.yaml:2:3"
    assert str(document.position(("a", "c", 1, "d"))) == "f.yaml:3:11"


def test_a_missing_field_stands_where_its_parent_does() -> None:
    assert str(read("a:\n  b: 1\n").position(("a", "x", "y"))) == "f.yaml:1:1"


def test_documents_are_told_apart_and_empty_ones_left_out() -> None:
    documents = list(read_documents("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n", "f.yaml"))
    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]
    assert str(documents[1].position(("b",))) == "f.yaml:7:1"


def test_anchors_and_merge_keys_are_written_out_and_own_keys_win() -> None:
    document = read("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nagain: *b\nboth: {<<: [*b, {y: 9, z: 4}]}\n")
    assert document.value["use"] == {"x": 1, "y": 3}
    assert document.value["again"] == {"x": 1, "y": 2}
    assert document.value["both"] == {"x": 1, "y": 2, "z": 4}
    assert str(document.position(("use", "x"))) == "f.yaml:1:11"
    assert str(document.position(("use", "y"))) == "f.yaml:4:3"
    assert not document.findings


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a: this key is here twice, first in line 1; keep one"),
        ("s: [{k: 1, k: 2}]", "f.yaml:1:12: s[0].k: this key is here twice, first in line 1; keep one"),
        ("a: &a [1, *a]", "f.yaml:1:4: this value contains itself through an alias"),
        ("a: &a\n  <<: *a\n", "f.yaml:1:4: << must be followed by aliases of other mappings"),
        ("a:\n  <<: 1\n", "f.yaml:2:7: << must be followed by aliases of other mappings"),
        ("? [1, 2]\n: x\n", "f.yaml:1:3: a key must be a plain word, not a list or a mapping"),
        ("a: !!int x", "f.yaml:1:4: 'x' is not a value of type tag:yaml.org,2002:int"),
        ("a: *nowhere", "f.yaml:1:4: not valid YAML: found undefined alias 'nowhere'"),
        ("a: " + "[" * 200, "f.yaml:1:103: nested more than 100 levels deep"),
        ("a: b: c", "f.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: \x07", "f.yaml:1:1: not valid YAML: unacceptable character #x0007: special characters are not allowed"),
    ],
)
def test_what_is_refused_and_where(text: str, finding: str) -> None:
    assert [str(found) for found in read(text).findings] == [finding]


def test_documents_before_a_syntax_error_are_read() -> None:
    before, broken = read_documents("a: 1\n---\nb: [\n", "f.yaml")
    assert before.value == {"a": 1}
    assert broken.value is None
    assert str(broken.findings[0]).startswith("f.yaml:4:1: not valid YAML: ")


@pytest.mark.parametrize(
    "use", ["[*{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}]", "{{<<: [*{0}, *{0}]}}"]
)
@pytest.mark.timeout(20)
def test_a_bomb_of_aliases_is_refused(use: str) -> None:
    lines = ["l0: &l0 {k: x}"]
    lines += [f"l{n}: &l{n} {use.format(f'l{n - 1}')}" for n in range(1, 40)]
    (found,) = read("\n".join(lines)).findings
    assert "holds more than 100,000 values with its aliases written out" in found.message
