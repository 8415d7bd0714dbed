"""hack/install_manifest.py: what a release publishes is the production installation, with every image by digest."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml
from posttrain_operator.cluster import Json
from posttrain_operator.settings import STAGES, from_environment
from support.manifests import ROOT, build, of_kind
from support.tools import Tools

IMAGES: Final = {name: f"ghcr.io/acme/{name}@sha256:{number:064x}" for number, name in enumerate(("operator", *STAGES))}


@pytest.fixture
def digests(tmp_path: Path) -> Path:
    """The folder that the jobs of a release leave."""
    for name, reference in IMAGES.items():
        (tmp_path / name).write_text(f"{reference}\n", "utf-8")
    return tmp_path


def manifest(tools: Tools, digests: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "hack/install_manifest.py"), str(digests)]
    path = f"{tools.programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def operators(objects: list[Json]) -> Json:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_every_image_is_named_by_its_digest(tools: Tools, digests: Path) -> None:
    done = manifest(tools, digests)
    assert (done.returncode, done.stderr) == (0, "")
    container = operators(list(yaml.safe_load_all(done.stdout)))
    assert container["image"] == IMAGES["operator"]
    told = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    assert from_environment(told).images == {stage: IMAGES[stage] for stage in STAGES}


def test_everything_else_is_the_production_installation(tools: Tools, digests: Path) -> None:
    made = list(yaml.safe_load_all(manifest(tools, digests).stdout))
    production = build(tools.program("kubectl"), "overlays/production")
    for objects in (made, production):
        container = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
        container["image"] = ""
        container["env"] = [entry for entry in container["env"] if not entry["name"].startswith("POSTTRAIN_IMAGE_")]
    assert made == production


@pytest.mark.parametrize("content", [None, "ghcr.io/acme/serve:0.1.0", "ghcr.io/acme/serve@sha256:12"])
def test_an_image_without_a_digest_is_refused(tools: Tools, digests: Path, content: str | None) -> None:
    (digests / "serve").unlink()
    if content is not None:
        (digests / "serve").write_text(content, "utf-8")
    done = manifest(tools, digests)
    assert (done.returncode, done.stdout) == (1, "")
    assert "/serve: a line such as ghcr.io/posttrain/serve@sha256:... is expected" in done.stderr
