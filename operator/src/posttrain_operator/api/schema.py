"""From a contract class to the structural OpenAPI schema that the API server takes: no $ref, no union, no default.

Defaults are named in the descriptions instead of the schema, so that the API server does not write them into objects.
"""

from collections.abc import Mapping
from typing import Any, Final

from posttrain_contract.base import Model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema = dict[str, Any]
"""A structural schema, as decoded YAML."""

RULES: Final = "x-kubernetes-validations"
"""Key of a schema's CEL rules."""

_KEPT: Final = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
"""Keys that mean the same in both dialects, in the order in which people read them."""
_TURNED: Final = {
    "const",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "items",
    "properties",
    "additionalProperties",
    "patternProperties",
    RULES,
}
_DROPPED: Final = {"title", "default", "propertyNames"}


class SchemaError(Exception):
    """A class says something that a structural schema cannot, or leaves something unsaid."""


def structural(model: type[Model]) -> Schema:
    """The structural schema of a class with its CEL rules; its description is the class's docstring.

    Raises ``SchemaError`` when a field has no description or a type that the API server does not take.
    """
    document = model.model_json_schema(schema_generator=_Generator)
    return _turn(document, document.get("$defs", {}), model.__name__)


class _Generator(GenerateJsonSchema):
    """Adds the rules of each class, and says ``X | None`` as X: absence is said by leaving the field out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        model = schema["cls"]
        rules = [{"rule": rule.cel, "message": rule.message} for rule in model.all_rules()]
        return {**result, RULES: rules} if rules else result


def _turn(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    said = _resolve(node, definitions)
    unknown = said.keys() - {*_KEPT} - _TURNED - _DROPPED
    if unknown:
        raise SchemaError(f"{path}: a structural schema cannot say {', '.join(sorted(unknown))}")
    turned = {key: said[key] for key in _KEPT if key in said} | _bounds(said) | _inner(said, definitions, path)
    if "const" in said:
        turned["enum"] = [said["const"]]
    if said.get("type") == "integer":
        turned["format"] = "int64"
    if RULES in said:
        turned[RULES] = [{"rule": rule["rule"], "message": rule["message"]} for rule in said[RULES]]
    return _ordered(turned)


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The node without $ref; what is said beside the $ref, such as the field's description, wins."""
    said = {key: value for key, value in node.items() if key not in ("$ref", "$defs")}
    if "$ref" not in node:
        return said
    return {**definitions[node["$ref"].removeprefix("#/$defs/")], **said}


def _bounds(said: Mapping[str, Any]) -> Schema:
    """Exclusive bounds as OpenAPI 3.0 says them: a bound, and a flag that it is exclusive."""
    pairs = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    return {
        key: value
        for bound, exclusive in pairs
        if exclusive in said
        for key, value in ((bound, said[exclusive]), (exclusive, True))
    }


def _inner(said: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    inner: Schema = {}
    if "items" in said:
        inner["items"] = _turn(said["items"], definitions, f"{path}[]")
        inner["x-kubernetes-list-type"] = said.get("x-kubernetes-list-type", "atomic")
    if "properties" in said:
        inner["properties"] = {
            name: _property(field, definitions, f"{path}.{name}") for name, field in said["properties"].items()
        }
    elif values := _map_values(said):
        inner["additionalProperties"] = _turn(values, definitions, f"{path}{{}}")
    return inner


def _map_values(said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a map's values; bounds of its keys cannot be said to the API server, only to the parse."""
    by_pattern: Mapping[str, Mapping[str, Any]] = said.get("patternProperties", {})
    return next(iter(by_pattern.values()), said.get("additionalProperties"))


def _property(field: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    schema = _turn(field, definitions, path)
    if "description" not in schema:
        raise SchemaError(f"{path}: no description; `kubectl explain` would say nothing")
    schema["description"] += _default(field.get("default"))
    return schema


def _default(value: Any) -> str:
    """The default in words; nothing for an absent, empty or nested one, whose own fields tell it."""
    match value:
        case bool():
            return f" Default: {str(value).lower()}."
        case int() | float():
            return f" Default: {value:g}." if isinstance(value, float) else f" Default: {value}."
        case str() if value:
            return f" Default: {value}."
        case _:
            return ""


def _ordered(schema: Schema) -> Schema:
    last = ("exclusiveMinimum", "exclusiveMaximum", "items", "properties", "additionalProperties", RULES)
    order = {key: position for position, key in enumerate((*_KEPT, *last))}
    return dict(sorted(schema.items(), key=lambda item: order[item[0]]))
