"""Objects that nobody meant to write: random changes to JSON, all from one seed."""

import copy
import random
from collections.abc import Iterator
from typing import Any, Final

from posttrain_operator.cluster import Json

_LONG: Final = "x" * 5000
SCALARS: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**53,
    -(2**63),
    0.5,
    1e308,
    "",
    " ",
    "x",
    "-1",
    "NaN",
    "../../etc/passwd",
    "$(reboot)",
    "{{.Values}}",
    "\u202egnp.exe",
    "データ",
    "\u0000",
    "99999999999h",
    "2026-13-45T99:99:99Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00+23:59",
    _LONG,
)
_COLLECTIONS: Final[tuple[Any, ...]] = ([], {}, [None], [[]], {"": ""}, {"x": {"x": {}}}, ["x"] * 50, [{}, 0, "x"])
Path = tuple[str | int, ...]


def paths(value: Any, prefix: Path = ()) -> Iterator[Path]:
    """The way to everything inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*prefix, key)
        yield from paths(inner, (*prefix, key))


def mutated(chance: random.Random, value: Any, *, changes: int = 3) -> Any:
    """A copy with up to so many changes somewhere inside: replaced, taken away, added or repeated."""
    found = copy.deepcopy(value)
    for _ in range(chance.randint(1, changes)):
        if ways := list(paths(found)):
            _change(chance, found, chance.choice(ways))
    return found


def like(chance: random.Random, value: Any) -> Any:
    """Another value of the same JSON type, so that a schema may let it pass."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([0, 1, 2, 3, 7, 64, 1000, value + 1, max(0, value - 1), 2**31 - 1])
    if isinstance(value, float):
        return chance.choice([0.0, 1e-9, 0.5, 1.0, 1e9, value / 2])
    return chance.choice(["x", "a-b", "9", "X_y.z", "pvc://other/x", "hf://acme/x", "1h", "0s", "データ"])


def mutated_alike(chance: random.Random, value: Any) -> Any:
    """A copy in which some scalars are others of the same type."""
    found = copy.deepcopy(value)
    scalars = [way for way in paths(found) if not isinstance(_at(found, way), dict | list)]
    for way in chance.sample(scalars, min(len(scalars), chance.randint(1, 3))):
        _at(found, way[:-1])[way[-1]] = like(chance, _at(found, way))
    return found


def poisoned(chance: random.Random, obj: Json) -> Json:
    """An object of which any part may be wrong but those that an API server warrants: what it is and where."""
    metadata = {**obj["metadata"]}
    for field in ("labels", "annotations"):
        if metadata.get(field) and chance.random() < 0.5:
            metadata[field] = {key: chance.choice(["", "x", "-7", value]) for key, value in metadata[field].items()}
    if metadata.get("ownerReferences") and chance.random() < 0.3:
        metadata["ownerReferences"] = [{**owner, "uid": "another"} for owner in metadata["ownerReferences"]]
    parts = {key: value for key, value in obj.items() if key in ("spec", "status", "data") and value}
    return {**obj, "metadata": metadata, **mutated(chance, parts)}


def _change(chance: random.Random, whole: Any, way: Path) -> None:
    holder, key = _at(whole, way[:-1]), way[-1]
    kind = chance.random()
    if kind < 0.6:
        holder[key] = copy.deepcopy(chance.choice(SCALARS if chance.random() < 0.7 else _COLLECTIONS))
    elif kind < 0.8:
        del holder[key]
    elif isinstance(holder, dict):
        holder[f"{key}x"] = copy.deepcopy(holder[key])
    else:
        holder.append(copy.deepcopy(holder[key]))


def _at(whole: Any, way: Path) -> Any:
    for key in way:
        whole = whole[key]
    return whole
