"""Which files of a repository are read: of a model what loading it takes, of a dataset its rows."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.hub import HubAddress

from posttrain_runtime.errors import StageError

_WEIGHTS: Final = ".safetensors"
_BESIDE_WEIGHTS: Final = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_SECOND_COPY: Final = "consolidated"
"""How the names of the same weights in their maker's own layout begin."""
_ROWS: Final = (".jsonl", ".json", ".csv", ".parquet")
_NO_ROWS: Final = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SPLIT: Final = re.compile(r"(?:^|[^a-z])(train|test|validation|valid|val|dev|eval)(?:[^a-z]|$)")
_LISTED: Final = 10


def choose(address: HubAddress, names: Sequence[str], *, field: str, weights: bool = True) -> list[str]:
    """The files to fetch, sorted; without ``weights`` what a model has beside them.

    ``names`` are all paths of the repository. Raises ``StageError`` (MODEL or DATA) naming ``field`` and what there is.
    """
    chosen = (
        _of_model(address, names, field, weights) if address.type == "model" else _of_dataset(address, names, field)
    )
    odd = [name for name in chosen if set(name.split("/")) & {"", ".", "..", ".cache"}]
    if odd:
        raise StageError(
            ExitCode.DATA, "OddFileName", f"{field}: {address.id} has a file {odd[0]!r}, which no folder can hold"
        )
    return sorted(chosen)


def _of_model(address: HubAddress, names: Sequence[str], field: str, weights: bool) -> list[str]:  # noqa: FBT001
    top = [name for name in names if "/" not in name and not name.startswith(_SECOND_COPY)]
    if not any(name.endswith(_WEIGHTS) for name in top):
        raise StageError(
            ExitCode.MODEL,
            "NoSafetensors",
            f"{field}: {address.id} has no {_WEIGHTS} file; pickled weights are not read, so choose a revision or a "
            f"copy that has them; there is {_list(names)}",
        )
    wanted = (_WEIGHTS, *_BESIDE_WEIGHTS) if weights else _BESIDE_WEIGHTS
    return [name for name in top if name.endswith(wanted)]


def _of_dataset(address: HubAddress, names: Sequence[str], field: str) -> list[str]:
    rows = [name for name in names if name.lower().endswith(_ROWS) and PurePosixPath(name).name not in _NO_ROWS]
    if address.path is not None:
        found = [name for name in names if matches(name, address.path)] or [
            name for name in rows if name.startswith(f"{address.path.rstrip('/')}/")
        ]
        if not found:
            raise StageError(
                ExitCode.DATA, "NoSuchFile", f"{field}: {address.id} has no {address.path}; there is {_list(names)}"
            )
        return found
    if not rows:
        raise StageError(
            ExitCode.DATA,
            "NoReadableFile",
            f"{field}: {address.id} has no {' or '.join(_ROWS)} file; there is {_list(names)}",
        )
    if len({_part(name) for name in rows}) > 1:
        raise StageError(
            ExitCode.DATA,
            "AmbiguousFiles",
            f"{field}: {address.id} has several parts, which are not read together; name the files to read, as in "
            f"hf://datasets/{address.id}/{min(rows)}; there is {_list(rows)}",
        )
    return rows


def _part(name: str) -> tuple[str, str]:
    """The folder and the split that a file of rows is in, as its name tells."""
    path = PurePosixPath(name)
    split = _SPLIT.search(path.name.lower())
    return str(path.parent), split[1] if split else ""


def matches(name: str, pattern: str) -> bool:
    """Whether a path fits a pattern, in which * stands for characters of one name and ** for any number of folders."""
    return _match(name.split("/"), pattern.split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match(parts[skipped:], patterns[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _match(parts[1:], patterns[1:])


def _list(names: Sequence[str]) -> str:
    shown = sorted(names)[:_LISTED]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more if names else "nothing"
