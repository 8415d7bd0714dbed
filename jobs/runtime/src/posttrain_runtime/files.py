"""Files that are either whole or not there."""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from posttrain_contract.artifact import FileEntry

_BLOCK = 1 << 20
_READERS = 8
"""Files that are read at once; hashing lets other threads run."""
_UNIQUE = re.compile(r"^\..+\.[0-9a-f]{12}(\.tmp|\.removed)?$")


def unique(name: str) -> str:
    """A name that no other process uses: in pods every process is number 1, so a process number is not enough."""
    return f".{name}.{uuid.uuid4().hex[:12]}"


def leftovers(folder: Path) -> Iterator[Path]:
    """What killed processes left under names that ``unique`` gave to things in a folder."""
    return (path for path in folder.iterdir() if _UNIQUE.match(path.name))


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, syncs it, and renames it."""
    temporary = path.with_name(f"{unique(path.name)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Makes every file below a folder durable."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def entries(folder: Path) -> Iterator[FileEntry]:
    """Every file below a folder with size and hash, sorted by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path, digest in zip(files, digests(files), strict=True):
        yield FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=digest)


def git_hash(path: Path) -> str:
    """The name that git gives a file's content, which the Hub tells of small files."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digests(files: Sequence[Path], *, check: Callable[[], None] = lambda: None) -> list[str]:
    """The SHA-256 of several files, read side by side; ``check`` is called before each and may raise."""

    def digest(path: Path) -> str:
        check()
        return sha256(path)

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(digest, files))
