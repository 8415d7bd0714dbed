"""From paths to objects: which files are read, which documents are ours, and every error of all of them at once."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain_operator.api.resources import is_ours
from posttrain_operator.cluster import Json

from posttrain.documents import Document, Finding, Position, read_documents
from posttrain.problems import Manifest, check_manifest, foreign_kind, unrecognized
from posttrain.references import check_references

SUFFIXES = (".yaml", ".yml")
STDIN = "-"


@dataclass(frozen=True)
class Checked:
    """What was found in manifests."""

    objects: tuple[Json, ...]
    """The objects of our kinds, as they could be applied: with a namespace and without a status."""
    findings: tuple[Finding, ...]
    """Everything that is wrong, in the order of files and lines; empty when the objects are valid."""
    notes: tuple[str, ...]
    """Documents that were left alone, because they belong to others."""


def find_files(paths: Sequence[str]) -> list[str]:
    """The files to read: in the order given, those of a folder sorted by path, each once.

    Folders are searched through for ``.yaml`` and ``.yml``; hidden files and folders are left out. ``-`` is standard
    input.
    """
    found: dict[str, str] = {}
    for path in paths:
        for name in _walk(path) if path != STDIN and Path(path).is_dir() else [path]:
            found.setdefault(STDIN if name == STDIN else os.path.realpath(name), name)
    return list(found.values())


def _walk(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from sorted(
            os.path.join(here, name)  # noqa: PTH118 - keeps the user's spelling of the folder
            for name in files
            if name.endswith(SUFFIXES) and not name.startswith(".")
        )


def check(files: Sequence[str], *, read_stdin: Callable[[], bytes]) -> Checked:
    """Reads and checks manifests, each alone and all together.

    Raises ``OSError`` when a file cannot be read.
    """
    documents = [document for file in files for document in _read(file, read_stdin)]
    findings = [finding for document in documents for finding in document.findings]
    notes: list[str] = []
    manifests: list[Manifest] = []
    for document in documents:
        if document.value is None:
            continue
        if _is_object(document.value) and is_ours(document.value):
            manifests.append(Manifest(document))
        elif (kind := foreign_kind(document.value)) is not None:
            notes.append(f"{document.position(())}: skipped {kind}, which is not of posttrain.dev")
        else:
            findings += unrecognized(document)
    unreadable = any(document.value is None for document in documents)
    findings += [finding for manifest in manifests for finding in check_manifest(manifest)]
    findings += check_references(manifests, unreadable=unreadable)
    order = {("<stdin>" if file == STDIN else file): number for number, file in enumerate(files)}
    findings.sort(key=lambda finding: (order[finding.position.file], finding.position))
    return Checked(tuple(manifest.as_applied() for manifest in manifests), tuple(findings), tuple(notes))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str)


def _read(file: str, read_stdin: Callable[[], bytes]) -> list[Document]:
    name = "<stdin>" if file == STDIN else file
    data = read_stdin() if file == STDIN else Path(file).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        position = Position(name, line, error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1)
        return [Document(None, {(): position}, (Finding(position, "not UTF-8 text; save the file as UTF-8"),))]
    return list(read_documents(text, name))
