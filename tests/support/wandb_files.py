"""Reads what W&B wrote offline: the records of a ``.wandb`` file, which is a LevelDB log of W&B's own messages."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32_768
_HEADER = struct.Struct("<IHB")
_FULL, _LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """The ``wandb.proto.wandb_internal_pb2.Record`` messages of a file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, whole = _HEADER.size, b""
    while position + _HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER.size:
            position += left
            continue
        _, length, kind = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        whole += data[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def runs(logs: Path) -> list[Path]:
    """The offline runs below a run folder's logs, in the order of time."""
    return sorted((logs / "wandb").glob("offline-run-*/*.wandb"))


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, in order."""
    lines = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            line: dict[str, Any] = {}
            for item in record.history.item:
                *outer, name = [item.key] if item.key else item.nested_key
                inner = line
                for key in outer:
                    inner = inner.setdefault(key, {})
                inner[name] = json.loads(item.value_json)
            lines.append(line)
    return lines


def tables(path: Path) -> dict[str, list[list[Any]]]:
    """The rows of every table that was logged, by its name, from the files beside the run."""
    found = {}
    for entry in history(path):
        for name, value in entry.items():
            if isinstance(value, dict) and value.get("_type") == "table-file":
                document = json.loads((path.parent / "files" / value["path"]).read_text(encoding="utf-8"))
                found[name] = document["data"]
    return found
