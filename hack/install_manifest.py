"""Prints the production installation with images by digest: ``install_manifest.py FOLDER``, of a release.

The folder has a file for each image: its name is the image's, and its line ``REGISTRY/NAME@sha256:...``. It needs the
standard library and ``kubectl``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PRODUCTION: Final = Path(__file__).resolve().parent.parent / "manifests/overlays/production"
OPERATOR: Final = "operator"
STAGES: Final = ("filter", "finetune", "rl", "serve", "upload")
REFERENCE: Final = re.compile(r"(?P<name>[a-z0-9./:_-]+)@(?P<digest>sha256:[0-9a-f]{64})")


def main() -> int:
    """Writes the manifest to standard output; returns the exit status."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        images = read(Path(sys.argv[1]))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(build(images))
    return 0


def read(folder: Path) -> dict[str, re.Match[str]]:
    """The reference of every image. Raises ``ValueError`` where one is missing or is no digest."""
    images = {}
    for name in (OPERATOR, *STAGES):
        path = folder / name
        match = REFERENCE.fullmatch(path.read_text("utf-8").strip()) if path.is_file() else None
        if match is None:
            raise ValueError(f"{path}: a line such as ghcr.io/posttrain/{name}@sha256:... is expected")
        images[name] = match
    return images


def build(images: Mapping[str, re.Match[str]]) -> str:
    """What kustomize makes of ``overlays/production`` with these images."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise SystemExit("kubectl is needed, which has kustomize built in; install it")
    with tempfile.TemporaryDirectory() as scratch:
        content = kustomization(images, os.path.relpath(PRODUCTION, Path(scratch).resolve()))
        (Path(scratch) / "kustomization.yaml").write_text(json.dumps(content), "utf-8")
        command = [kubectl, "kustomize", scratch]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - kubectl


def kustomization(images: Mapping[str, re.Match[str]], base: str) -> dict[str, Any]:
    """Puts the images into the installation ``base``."""
    variables = [{"name": f"POSTTRAIN_IMAGE_{stage.upper()}", "value": images[stage][0]} for stage in STAGES]
    patch = [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": value} for value in variables]
    operator = images[OPERATOR]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [base],
        "images": [{"name": "ghcr.io/posttrain/operator", "newName": operator["name"], "digest": operator["digest"]}],
        "patches": [{"target": {"kind": "Deployment", "name": "posttrain-operator"}, "patch": json.dumps(patch)}],
    }


if __name__ == "__main__":
    sys.exit(main())
