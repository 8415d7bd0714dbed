"""Checks that the contract is light: its wheel alone, in an empty environment, needs pydantic and nothing heavier."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"

ALLOWED = {
    "annotated_types",
    "posttrain_contract",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
IMPORT_ALL = """
import importlib, pkgutil, sys
import posttrain_contract
for module in pkgutil.walk_packages(posttrain_contract.__path__, "posttrain_contract."):
    importlib.import_module(module.name)
installed = [name for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", "") or "")]
print(*{name.partition(".")[0] for name in installed})
"""


def main() -> int:
    """Builds, installs and imports; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="posttrain-slim-") as folder:
        imported = imported_modules(install(build(Path(folder)), Path(folder)))
    if foreign := sorted(imported - ALLOWED):
        sys.stderr.write(f"posttrain_contract imports {', '.join(foreign)}; it may import pydantic alone\n")
        return 1
    sys.stdout.write(f"the contract's wheel imports {', '.join(sorted(imported))}\n")
    return 0


def build(folder: Path) -> Path:
    """The contract's wheel, built from a copy: setuptools would take stale files from an earlier build beside it."""
    source = folder / "contract"
    shutil.copytree(ROOT / "jobs/contract", source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """The interpreter of a new environment that has the wheel and what it declares, in the operator's versions."""
    environment = folder / "environment"
    python = environment / "bin/python"
    uv("venv", "--python", sys.executable, str(environment))
    uv("pip", "install", "--python", str(python), "--constraint", str(ROOT / "locks/operator.lock"), str(wheel))
    return python


def imported_modules(python: Path) -> set[str]:
    """The top-level modules outside the standard library that importing all of the contract brings in."""
    # The environment shall see nothing of this one: no PYTHONPATH, no current folder (-I).
    command = [str(python), "-I", "-c", IMPORT_ALL]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own environment
    return set(done.stdout.split())


def uv(*arguments: str) -> None:
    """Runs uv; its messages are for when it fails."""
    subprocess.run([str(UV), "--quiet", *arguments], check=True)  # noqa: S603 - the locked tool


if __name__ == "__main__":
    sys.exit(main())
