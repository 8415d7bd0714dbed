"""Manifests and examples at an API server with the training operator's and Kueue's own webhooks; nothing is kept."""

from pathlib import Path
from typing import Final

import pytest
import yaml
from support.kubectl import has_kind, kustomize
from support.manifests import FILES, FOLDERS, MANIFESTS, ROOT
from support.on_cluster import OnCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DRY: Final = ("apply", "--dry-run=server")


def test_every_example_and_sample_is_taken(empty: OnCluster) -> None:
    for path in FILES:
        assert "dry run" in empty.kubectl.run(*DRY, "--filename", str(path)), path


def test_what_every_folder_comes_to_is_taken(empty: OnCluster) -> None:
    queues = has_kind("clusterqueues.kueue.x-k8s.io")
    folders = [MANIFESTS / folder for folder in FOLDERS if queues or "kueue" not in Path(folder).parts]
    for folder in (*folders, ROOT / "examples" / "quickstart" / "inputs"):
        made = kustomize(folder, namespace=empty.kubectl.namespace)
        arguments = (*DRY, "--server-side", "--force-conflicts", "--filename", "-")
        told = empty.kubectl.run(*arguments, text=yaml.safe_dump_all(made))
        assert len(told.splitlines()) == len(made), folder
