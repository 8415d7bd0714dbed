"""Schemas for the API server: structural, bounded, described, and of one mind with the parse."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jsonschema
import pytest
from posttrain_contract.base import Model, Rule
from posttrain_operator.api.crd import crd
from posttrain_operator.api.resources import KINDS, Kind, read_spec
from posttrain_operator.api.schema import SchemaError, structural
from pydantic import Field

Json = dict[str, Any]

KNOWN = {
    "description", "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "maxProperties", "required", "items", "properties",
    "additionalProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
}  # fmt: skip


def schema_of(kind: Kind) -> Json:
    return dict(crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


# ---- what Kubernetes refuses, and what this project asks beyond that ----


def faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Everything in a schema that the API server refuses, and everything unbounded or undescribed."""
    yield from (f"{path}: {key} is not structural" for key in sorted(schema.keys() - KNOWN))
    match schema.get("type"):
        case "object":
            yield from _object_faults(schema, path)
        case "array":
            yield from _array_faults(schema, path)
        case "string":
            if not {"maxLength", "enum"} & schema.keys() and schema.get("format") != "date-time":
                yield f"{path}: string without bound"
        case "integer":
            if schema.get("format") != "int64":
                yield f"{path}: integer without format"
        case "number" | "boolean":
            pass
        case other:
            yield f"{path}: type {other}"
    yield from _bound_faults(schema, path)


def _object_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    values = schema.get("additionalProperties")
    if bool(properties) == (values is not None):
        yield f"{path}: object needs properties or additionalProperties, not both"
    if isinstance(values, bool):
        yield f"{path}: additionalProperties must be a schema"
    elif values is not None:
        if "maxProperties" not in schema:
            yield f"{path}: map without bound"
        yield from faults(values, f"{path}{{}}")
    yield from (
        f"{path}: required {name} is no property" for name in schema.get("required", ()) if name not in properties
    )
    for name, field in properties.items():
        if not field.get("description", "").rstrip().endswith("."):
            yield f"{path}.{name}: no description that is a sentence"
        yield from faults(field, f"{path}.{name}")


def _array_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if "maxItems" not in schema:
        yield f"{path}: list without bound"
    if not isinstance(schema.get("items"), Mapping):
        yield f"{path}: list without one schema for its items"
        return
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if (schema.get("x-kubernetes-list-type") == "map") != bool(keys):
        yield f"{path}: map lists, and only they, have keys"
    yield from (f"{path}: key {key} is not required" for key in keys if key not in schema["items"].get("required", ()))
    yield from faults(schema["items"], f"{path}[]")


def _bound_faults(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema and (schema[exclusive] is not True or bound not in schema):
            yield f"{path}: {exclusive} is a flag beside {bound}"
    for rule in schema.get("x-kubernetes-validations", ()):
        if not rule.get("message") or "\n" in rule["message"]:
            yield f"{path}: rule without a message of one line"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("half", ["spec", "status"])
def test_the_generated_schema_is_structural_bounded_and_described(kind: Kind, half: str) -> None:
    assert list(faults(schema_of(kind)["properties"][half], half)) == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_root_restricts_no_metadata_beyond_its_rule(kind: Kind) -> None:
    root = schema_of(kind)
    assert root["properties"]["metadata"] == {"type": "object"}
    assert root["required"] == ["spec"]
    assert "oldSelf" not in root["x-kubernetes-validations"][0]["rule"]


FLAG = {"a": {"type": "boolean", "description": "A."}}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"$ref": "#/$defs/X", "type": "object", "properties": FLAG}, "$ref"),
        ({"type": "boolean", "default": True}, "default"),
        ({"anyOf": [{"type": "integer"}]}, "anyOf"),
        ({"description": "A."}, "type None"),
        ({"type": "string", "pattern": "^a*$"}, "string without bound"),
        ({"type": "integer"}, "integer without format"),
        ({"type": "array", "items": {"type": "boolean"}}, "list without bound"),
        ({"type": "array", "maxItems": 3}, "list without one schema"),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, "map without bound"),
        ({"type": "object", "additionalProperties": False}, "must be a schema"),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, "no description"),
        ({"type": "object", "properties": FLAG, "required": ["b"]}, "no prop"),
        ({"type": "number", "exclusiveMinimum": 0}, "is a flag"),
        ({"type": "boolean", "x-kubernetes-validations": [{"rule": "true"}]}, "without a message"),
        (
            {
                "type": "array",
                "maxItems": 1,
                "items": {"type": "object", "properties": FLAG},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"],
            },
            "is not required",
        ),
    ],
)
def test_the_checker_finds_each_fault(schema: Json, fault: str) -> None:
    assert any(fault in found for found in faults(schema, "x"))


# ---- how single fields are said ----


class Part(Model):
    """A part."""

    size: int = Field(default=3, ge=1, description="Size.")


class Whole(Model):
    """A whole."""

    name: str | None = Field(default=None, max_length=5, description="Name.")
    share: float = Field(default=2e-5, gt=0, lt=1, description="Share.")
    on: bool = Field(default=True, description="On.")
    mode: Literal["a"] = Field(description="Mode.")
    part: Part = Field(default=Part(), description="The part.")
    parts: tuple[Part, ...] = Field(default=(), max_length=2, description="Parts.")
    by_name: dict[str, Part] = Field(default={}, max_length=2, description="Parts by name.")

    rules: ClassVar[tuple[Rule, ...]] = (Rule("has(self.name)", lambda self: self.name is not None, "set name"),)


def test_every_field_in_the_words_of_the_api_server() -> None:
    part = {"type": "object", "properties": {"size": {
        "description": "Size. Default: 3.", "type": "integer", "format": "int64", "minimum": 1,
    }}}  # fmt: skip
    assert structural(Whole) == {
        "description": "A whole.",
        "type": "object",
        "required": ["mode"],
        "properties": {
            "name": {"description": "Name.", "type": "string", "maxLength": 5},
            "share": {
                "description": "Share. Default: 2e-05.",
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
            },
            "on": {"description": "On. Default: true.", "type": "boolean"},
            "mode": {"description": "Mode.", "type": "string", "enum": ["a"]},
            "part": {"description": "The part.", **part},
            "parts": {
                "description": "Parts.",
                "type": "array",
                "maxItems": 2,
                "x-kubernetes-list-type": "atomic",
                "items": {"description": "A part.", **part},
            },
            "byName": {
                "description": "Parts by name.",
                "type": "object",
                "maxProperties": 2,
                "additionalProperties": {"description": "A part.", **part},
            },
        },
        "x-kubernetes-validations": [{"rule": "has(self.name)", "message": "set name"}],
    }


class Undescribed(Model):
    """A class that forgot to describe a field."""

    size: int = 1


class Either(Model):
    """A class with a union, which has no structural form."""

    size: int | str = Field(description="Size.")


def test_a_field_without_description_is_named() -> None:
    with pytest.raises(SchemaError, match=r"Undescribed\.size: no description"):
        structural(Undescribed)


def test_a_union_is_named() -> None:
    with pytest.raises(SchemaError, match=r"Either\.size: .*anyOf"):
        structural(Either)


# ---- the API server's schema and the parse agree ----

MODEL = {"uri": "pvc://data/model"}
TASKS = {"from": "FilterJob/hard"}
REWARDS = [{"name": "exact-match"}]
FILTER = {"source": MODEL, "byLabel": {"column": "p", "max": 0.5}}
FINETUNE = {"model": MODEL, "dataset": TASKS}
RL = {"model": MODEL, "dataset": TASKS, "rewards": REWARDS}
UPLOAD = {"source": {"from": "RLJob/grpo"}, "repository": {"id": "acme/model"}}

GOOD: list[tuple[str, Json]] = [
    ("FilterJob", FILTER),
    ("FilterJob", {**FILTER, "columns": {"prompt": "problem"}, "output": {"rowsPerShard": 1}, "parallelism": 256}),
    ("FilterJob", {**FILTER, "byLabel": {"column": "p", "min": 0, "missing": "error"}}),
    ("FineTuneJob", FINETUNE),
    ("FineTuneJob", {**FINETUNE, "adapter": {}, "export": {"merge": False}}),
    ("FineTuneJob", {**FINETUNE, "training": {"epochs": 0.5, "learningRate": 1, "maxLength": 8}}),
    ("RLJob", RL),
    ("RLJob", {**RL, "evaluation": {"generate": {"dataset": TASKS}}}),
    ("UploadJob", UPLOAD),
    ("UploadJob", {**UPLOAD, "card": {"language": ["ja", "en"], "license": "mit"}}),
    ("UploadJob", {**UPLOAD, "run": {}}),
    ("UploadJob", {**UPLOAD, "run": {"deadline": "1h30m", "resources": {"cpu": "8", "memory": "1.5Gi"}, "retries": 0}}),
    ("UploadJob", {**UPLOAD, "run": {"nodeSelector": {"zone": ""}, "tolerations": [{"operator": "Exists"}]}}),
    ("UploadJob", {**UPLOAD, "run": {"env": [{"name": "NCCL_DEBUG", "value": "INFO"}], "suspend": True}}),
]  # fmt: skip

BAD: list[tuple[str, Json]] = [
    ("FilterJob", {"source": MODEL}),
    ("FilterJob", {**FILTER, "parallelism": 0}),
    ("FilterJob", {**FILTER, "parallelism": "2"}),
    ("FilterJob", {**FILTER, "parallelism": 1.5}),
    ("FilterJob", {**FILTER, "parallelism": True}),
    ("FilterJob", {**FILTER, "source": {"uri": "/data/model"}}),
    ("FilterJob", {**FILTER, "source": {"uri": f"pvc://data/{'x' * 1024}"}}),
    ("FilterJob", {**FILTER, "source": {"from": "UploadJob/x"}}),
    ("FilterJob", {**FILTER, "source": "pvc://data/model"}),
    ("FilterJob", {**FILTER, "byLabel": {"column": "", "max": 1}}),
    ("FilterJob", {**FILTER, "byLabel": {"column": "p", "max": "1"}}),
    ("FilterJob", {**FILTER, "columns": {"prompt": 1}}),
    ("FilterJob", {**FILTER, "columns": {f"c{i}": "x" for i in range(65)}}),
    ("FineTuneJob", {**FINETUNE, "method": "rlhf"}),
    ("FineTuneJob", {**FINETUNE, "training": {"epochs": 0}}),
    ("FineTuneJob", {**FINETUNE, "training": {"learningRate": 1.1}}),
    ("FineTuneJob", {**FINETUNE, "training": {"precision": "fp16"}}),
    ("FineTuneJob", {**FINETUNE, "adapter": {"lora": {"dropout": 1}}}),
    ("FineTuneJob", {**FINETUNE, "export": {"merge": "yes"}}),
    ("FineTuneJob", {**FINETUNE, "export": {"merge": 1}}),
    ("RLJob", {**RL, "rewards": []}),
    ("RLJob", {**RL, "rewards": REWARDS * 17}),
    ("RLJob", {**RL, "rewards": {"name": "exact-match"}}),
    ("RLJob", {**RL, "rewards": [{"weight": 1}]}),
    ("RLJob", {**RL, "evaluation": {}}),
    ("RLJob", {**RL, "grpo": {"groupSize": 1}}),
    ("UploadJob", {**UPLOAD, "repository": {"id": "model"}}),
    ("UploadJob", {**UPLOAD, "repository": {"id": "acme/model", "private": "no"}}),
    ("UploadJob", {**UPLOAD, "card": {"body": "x" * 100_001}}),
    ("UploadJob", {**UPLOAD, "run": {"deadline": "2 hours"}}),
    ("UploadJob", {**UPLOAD, "run": {"deadline": f"{'9' * 20}d"}}),
    ("UploadJob", {**UPLOAD, "run": {"resources": {"cpu": 8}}}),
    ("UploadJob", {**UPLOAD, "run": {"resources": {"gpus": -1}}}),
    ("UploadJob", {**UPLOAD, "run": {"resources": {"gpuResource": "gpu"}}}),
    ("UploadJob", {**UPLOAD, "run": {"env": [{"name": "A"}]}}),
    ("UploadJob", {**UPLOAD, "run": {"env": [{"name": "A B", "value": ""}]}}),
    ("UploadJob", {**UPLOAD, "run": {"nodeSelector": {"zone": "not a label"}}}),
    ("UploadJob", {**UPLOAD, "run": {"queue": "q" * 64}}),
    ("UploadJob", {**UPLOAD, "run": {"image": ""}}),
    ("UploadJob", {**UPLOAD, "run": []}),
]  # fmt: skip


def schema_accepts(kind: str, spec: Json) -> bool:
    # OpenAPI 3.0 says bounds like the fourth draft of JSON Schema: exclusiveMinimum is a flag.
    validator = jsonschema.Draft4Validator(schema_of(KINDS[kind])["properties"]["spec"])
    return bool(validator.is_valid(spec))


def parse_accepts(kind: str, spec: Json) -> bool:
    found, _, _ = read_spec({"kind": kind, "metadata": {"name": "x"}, "spec": spec})
    return not found


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_schema_and_parse_accept(kind: str, spec: Json) -> None:
    assert (schema_accepts(kind, spec), parse_accepts(kind, spec)) == (True, True)


@pytest.mark.parametrize(("kind", "spec"), BAD)
def test_schema_and_parse_refuse(kind: str, spec: Json) -> None:
    assert (schema_accepts(kind, spec), parse_accepts(kind, spec)) == (False, False)
