"""Makes and checks the hashed requirement locks: ``locks.py write [--upgrade]`` and ``locks.py check``.

Every ``locks/NAME.in`` becomes ``locks/NAME.lock``: exact versions with hashes and no index address, so that any mirror
with the same files serves. One lock fits every supported Python, because each is compiled and all must agree. The first
line of a lock carries a digest of what it was made from and of what it says, so that an edit by hand or a forgotten
``make lock`` shows without a package index; with one, ``check`` resolves again and compares.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
UV = Path(sys.executable).parent / "uv"

ENVIRONMENTS = ("bootstrap", "build", "cpu", "operator", "filter", "finetune", "rl", "serve", "upload", "dev")
"""In the order of compilation: a later one keeps to the versions of those before it."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The images have the first; a developer's machine has any of them, and ``dev`` is what it installs."""
OPTIONS = ("--python-platform", "x86_64-manylinux_2_31", "--only-binary", ":all:", "--no-binary", "deepspeed")
"""glibc 2.31 and up; wheels alone, so that no installation needs a compiler."""
UNREACHABLE = 2
"""uv's exit status when it could not ask the index, where 1 means that there is no solution."""

PIN = re.compile(r"^[a-z0-9._-]+(?:\[[a-z0-9,._-]+\])?==[^\s\\;]+", re.MULTILINE)


class LockError(Exception):
    """A lock cannot be made or is not current; the message says the remedy."""


def main() -> int:
    """Writes or checks every lock; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes and checks locks/*.lock.")
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="compile every lock, keeping the present versions where they fit")
    write.add_argument("--upgrade", action="store_true", help="take the newest versions that fit instead")
    commands.add_parser("check", help="fail when a lock is not what `make lock` would write")
    arguments = parser.parse_args()
    try:
        if arguments.command == "write":
            for name in ENVIRONMENTS:
                write_lock(name, upgrade=arguments.upgrade)
        else:
            check_locks()
    except LockError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def write_lock(name: str, *, upgrade: bool) -> None:
    """Compiles one lock; its present versions are kept where they fit, its hashes are always asked for again."""
    lock = LOCKS / f"{name}.lock"
    present = pins(lock.read_text()) if lock.is_file() and not upgrade else []
    body = compile_lock(name, python=PYTHONS[0], keep=present, hashes=True)
    compare_all([(name, python) for python in pythons(name)[1:]], expected={name: pins(body)})
    lock.write_text(f"{first_line(name, body)}\n{body}")
    sys.stderr.write(f"locks/{name}.lock: {len(pins(body))} packages\n")


def check_locks() -> None:
    """Raises LockError unless every lock is current; without a package index only the digests are compared."""
    for name in ENVIRONMENTS:
        check_digest(name)
    present = {name: pins((LOCKS / f"{name}.lock").read_text()) for name in ENVIRONMENTS}
    try:
        compare_all([(name, python) for name in ENVIRONMENTS for python in pythons(name)], expected=present)
    except ConnectionError as error:
        sys.stderr.write(f"no package index, so only the locks' digests were checked: {error}\n")


def pythons(name: str) -> tuple[str, ...]:
    """The Python versions that must agree on one lock."""
    return PYTHONS if name == "dev" else PYTHONS[:1]


def check_digest(name: str) -> None:
    """Raises LockError when the lock, its inputs or the options were changed by anything but ``make lock``."""
    lock = LOCKS / f"{name}.lock"
    if not lock.is_file():
        raise LockError(f"locks/{name}.lock is missing; run: make lock")
    line, _, body = lock.read_text().partition("\n")
    if line != first_line(name, body):
        message = f"locks/{name}.lock does not belong to locks/{name}.in, or was edited by hand; run: make lock"
        raise LockError(message)


def compare_all(tasks: list[tuple[str, str]], *, expected: dict[str, list[str]]) -> None:
    """Compares (lock, Python) pairs side by side: resolving waits for the index more than it computes."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(compare, name, python=python, expected=expected[name]) for name, python in tasks]:
            done.result()


def compare(name: str, *, python: str, expected: list[str]) -> None:
    """Raises LockError when a Python needs other packages than ``expected``, ConnectionError without an index."""
    found = pins(compile_lock(name, python=python, keep=expected, hashes=False))
    if found != expected:
        lacks = ", ".join(sorted(set(found) - set(expected))) or "nothing"
        extra = ", ".join(sorted(set(expected) - set(found))) or "nothing"
        message = f"locks/{name}.lock, Python {python}: lacks {lacks}; has for no reason {extra}; run: make lock"
        if python != PYTHONS[0]:
            message += f", and if that does not help, name in locks/{name}.in what only some Pythons ask for"
        raise LockError(message)


def compile_lock(name: str, *, python: str, keep: list[str], hashes: bool) -> str:
    """What uv resolves ``locks/NAME.in`` to, preferring the versions in ``keep``."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / f"{name}.lock"
        # Versions alone: uv takes hashes that it finds here for true.
        output.write_text("\n".join(keep))
        command = [str(UV), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"]
        command += [*OPTIONS, "--python-version", python, "--output-file", str(output), f"{name}.in"]
        command += ["--generate-hashes"] if hashes else []
        command += [part for override in sorted(LOCKS.glob("*.overrides")) for part in ("--override", override.name)]
        for earlier in ENVIRONMENTS[: ENVIRONMENTS.index(name)]:
            shutil.copy(LOCKS / f"{earlier}.lock", scratch)
            command += ["--constraint", str(Path(scratch) / f"{earlier}.lock")]
        done = subprocess.run(command, cwd=LOCKS, capture_output=True, text=True, check=False)  # noqa: S603 - uv
        if done.returncode == UNREACHABLE:
            raise ConnectionError(done.stderr.strip())
        if done.returncode != 0:
            raise LockError(f"locks/{name}.in, Python {python}: {done.stderr.strip()}")
        return output.read_text()


def pins(lock: str) -> list[str]:
    """The ``name==version`` entries of a lock, in its order."""
    return PIN.findall(lock)


def first_line(name: str, body: str) -> str:
    """The first line of a lock: how it is made, and the digest of all that went into it and of its content."""
    digest = hashlib.sha256()
    inputs = [(LOCKS / f"{name}.in").read_text(), *sources(name), *OPTIONS, *PYTHONS, body]
    inputs += [override.read_text() for override in sorted(LOCKS.glob("*.overrides"))]
    for text in inputs:
        digest.update(hashlib.sha256(text.encode()).digest())
    return f"# generated by make lock from {name}.in, digest {digest.hexdigest()[:32]}"


def sources(name: str) -> list[str]:
    """The text of the requirement files that ``locks/NAME.in`` includes."""
    included = re.findall(r"^-r (\S+)$", (LOCKS / f"{name}.in").read_text(), re.MULTILINE)
    return [(LOCKS / path).read_text() for path in included]


if __name__ == "__main__":
    sys.exit(main())
