"""The layers of pyproject.toml (tool.importlinter) hold, and a planted import across a layer is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"

CROSSINGS = [
    ("posttrain_contract.base", "posttrain_runtime.errors"),
    ("posttrain_contract.base", "torch"),
    ("posttrain_contract.base", "kubernetes"),
    ("posttrain_runtime.store", "posttrain_training.rows"),
    ("posttrain_runtime.store", "transformers"),
    ("posttrain_training.rows", "posttrain_finetune.train"),
    ("posttrain_finetune.train", "posttrain_rl.train"),
    ("posttrain_serve.server", "posttrain_filter.work"),
    ("posttrain_filter.work", "posttrain_upload.work"),
    ("posttrain_upload.work", "posttrain_training.rows"),
    ("posttrain_filter.work", "vllm"),
    ("posttrain_operator.names", "posttrain_runtime.store"),
    ("posttrain_operator.names", "posttrain_filter.work"),
    ("posttrain_operator.names", "torch"),
    ("posttrain_operator.names", "kopf"),
    ("posttrain_operator.labels", "posttrain_operator.api.run"),
    ("posttrain_operator.api.run", "posttrain_operator.observe.facts"),
    ("posttrain_operator.observe.facts", "posttrain_operator.plan.types"),
    ("posttrain_operator.plan.types", "posttrain_operator.status"),
    ("posttrain_operator.status", "posttrain_operator.reconcile"),
    ("posttrain_operator.reconcile", "posttrain.main"),
    ("posttrain_operator.events", "posttrain_operator.reconcile"),
    ("posttrain_operator.reconcile", "posttrain_operator.queue"),
    ("posttrain_operator.reconcile", "posttrain_operator.kube"),
    ("posttrain_operator.reconcile", "kubernetes"),
    ("posttrain_operator.plan.planner", "posttrain_operator.cache"),
    ("posttrain_operator.observe.kueue", "posttrain_operator.watched"),
    ("posttrain_operator.status", "posttrain_operator.metrics"),
    ("posttrain_operator.queue", "posttrain_operator.controller"),
    ("posttrain_operator.watched", "posttrain_operator.rest"),
    ("posttrain_operator.cache", "posttrain_operator.lists"),
    ("posttrain_operator.telemetry", "posttrain_operator.rest"),
    ("posttrain_operator.lease", "posttrain_operator.kube"),
    ("posttrain_operator.controller", "posttrain_operator.handlers"),
    ("posttrain_operator.kube", "kubernetes"),
    ("posttrain_operator.lease", "kubernetes"),
    ("posttrain_operator.handlers", "kubernetes"),
    ("posttrain_operator.controller", "kopf"),
    ("posttrain_operator.__main__", "kopf"),
    ("posttrain_operator.kube", "aiohttp"),
    ("posttrain_operator.lease", "aiohttp"),
    ("posttrain_operator.handlers", "aiohttp"),
    ("posttrain_operator.plan.inputs", "aiohttp"),
    ("posttrain_operator.probes", "prometheus_client"),
    ("posttrain.main", "posttrain_finetune.train"),
    ("posttrain.main", "vllm"),
]
"""Modules, and what each must not import."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says about a copy of the sources with every crossing in it."""
    copy = copied_sources(tmp_path_factory.mktemp("planted"))
    for module, forbidden in CROSSINGS:
        (path,) = copy.glob(f"src/{module.replace('.', '/')}.py")
        path.write_text(f"{path.read_text()}\nimport {forbidden}\n")
    (copy / "src/posttrain_operator/unplaced.py").touch()
    done = lint_imports(copy)
    assert done.returncode == 1
    return done.stdout


def copied_sources(folder: Path) -> Path:
    """A copy of every source package and of the contracts between them."""
    for package in [*ROOT.glob("*/src/posttrain*"), *ROOT.glob("jobs/*/src/posttrain*")]:
        if package.suffix == "":
            shutil.copytree(package, folder / "src" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the linter on the copy, not on what is installed."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    command = [str(LINT_IMPORTS), "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_sources_keep_every_contract(tmp_path: Path) -> None:
    done = lint_imports(copied_sources(tmp_path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("module", "forbidden"), CROSSINGS)
def test_an_import_across_a_layer_is_reported(planted: str, module: str, forbidden: str) -> None:
    assert f"{module} -> {forbidden} (l." in planted


def test_a_new_operator_module_needs_a_place_among_the_layers(planted: str) -> None:
    assert "posttrain_operator.unplaced" in planted
