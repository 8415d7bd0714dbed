"""Objects as users might write them, drawn from the structural schema of a class."""

from typing import Any

from hypothesis import strategies as st
from posttrain_contract.inputs import UriPattern

Json = dict[str, Any]
_KEYS = ("a", "b", "acme.dev/a", "posttrain.dev/a", "app.kubernetes.io/a", "kueue.x-k8s.io/a")
"""Keys of labels, of others and of ours."""


def raw_objects(schema: Json) -> st.SearchStrategy[Json]:
    """Objects that the API server's schema of a class admits before it looks at the class's rules."""
    required = set(schema.get("required", ()))
    strategies = {name: _values(field) for name, field in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: inner for name, inner in strategies.items() if name in required},
        optional={name: inner for name, inner in strategies.items() if name not in required},
    )


def _values(schema: Json) -> st.SearchStrategy[Any]:
    match schema:
        case {"enum": choices}:
            return st.sampled_from(choices)
        case {"properties": {"from": _, "uri": _}}:
            # A wrong input inside would keep the parse from reaching the rules of the class.
            return st.just({"uri": "pvc://data/train"})
        case {"type": "object", "properties": _}:
            return raw_objects(schema)
        case {"type": "object"}:
            values = _values(schema["additionalProperties"])
            return st.dictionaries(st.sampled_from(_KEYS) | st.text(min_size=1, max_size=3), values, max_size=2)
        case {"type": "array"}:
            return st.lists(_values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2)
        case _:
            return _scalars(schema)


def _scalars(schema: Json) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    match schema["type"]:
        case "integer":
            near = st.integers(min_value=low, max_value=high if low is None else min(high, low + 20))
            return near | st.integers(min_value=low, max_value=high)
        case "number":
            return st.floats(
                min_value=low,
                max_value=high,
                exclude_min="exclusiveMinimum" in schema,
                exclude_max="exclusiveMaximum" in schema,
                allow_nan=False,
                allow_infinity=False,
            )
        case "boolean":
            return st.booleans()
        case _:
            return _texts(schema)


def _texts(schema: Json) -> st.SearchStrategy[str]:
    if schema.get("pattern") == UriPattern:
        segments = st.lists(st.sampled_from(["a", ".", "..", "...", "a.b", ".a", ""]), max_size=4)
        return segments.map(lambda parts: "pvc://data/x" + "/".join(parts)) | segments.map(
            lambda parts: "file:///" + "/".join(parts)
        )
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].replace("$", r"\Z"), alphabet="ab0/.-_{}AFilterJobRLneTusmhd").filter(
            lambda text: len(text) <= schema["maxLength"]
        )
    return st.text(min_size=schema.get("minLength", 0), max_size=3)
