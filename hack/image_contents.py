"""What is wrong with the files of an image. Runs inside it, with the standard library alone, for ``images.py``."""

import importlib.util
import json
import os
import stat
import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

HEADER = struct.Struct("<4sIII")
"""PEP 552: magic number, flags, and the source's time and size unless the flags say that it is checked by its hash."""
NOT_STANDARD = frozenset({"test", "tests", "site-packages", "dist-packages"})
"""Folders of the standard library that the Dockerfiles leave as they are: no program imports from them."""


def main(folder: Path, library: Path) -> int:
    """Prints what was found below a folder and in the standard library; returns the exit status."""
    modules = [*folder.glob("**/site-packages/**/*.py"), *standard_modules(library)]
    found = {"uid": os.getuid(), "uncompiled": list(uncompiled(modules)), "unsafe": list(unsafe(folder))}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def standard_modules(library: Path) -> Iterator[Path]:
    """The standard library without its tests, and without what a base image installed below it for its own use."""
    for path in library.rglob("*.py"):
        if NOT_STANDARD.isdisjoint(path.relative_to(library).parts):
            yield path


def uncompiled(modules: Iterable[Path]) -> Iterator[str]:
    """The modules that every start would compile anew: they have no byte code, or that of another source."""
    for path in sorted(modules):
        if not is_compiled(path) and can_be_compiled(path):
            yield str(path)


def is_compiled(path: Path) -> bool:
    """Whether the interpreter would take the byte code beside a module."""
    try:
        header = Path(importlib.util.cache_from_source(str(path))).read_bytes()[: HEADER.size]
    except FileNotFoundError:
        return False
    magic, flags, time, size = HEADER.unpack(header)
    if magic != importlib.util.MAGIC_NUMBER:
        return False
    source = path.stat()
    return flags != 0 or (time, size) == (int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF)


def can_be_compiled(path: Path) -> bool:
    """False for what libraries ship that is no Python, such as templates and tests of broken files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def unsafe(folder: Path) -> Iterator[str]:
    """What gives its caller another user's rights, or can be changed by everybody."""
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH):
            yield f"{path} ({stat.filemode(mode)})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
