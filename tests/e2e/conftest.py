"""The cluster that the end-to-end tests work on: whatever KUBECONFIG names, if it is there to be tried on."""

import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
from support.kubectl import NamespacedKubectl, connection, unusable
from support.on_cluster import OnCluster
from support.operator_process import operator_process

CRDS: Final = Path(__file__).parents[2] / "crds"
IMAGE: Final = os.environ.get("POSTTRAIN_E2E_IMAGE", "posttrain/cpu:dev")
STAGES: Final = ("filter", "finetune", "rl", "serve", "upload")
RESTRICTED: Final = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
_END_SECONDS: Final = 400.0
"""Longer than a pod may take to end."""
_SCENE: Final = pytest.StashKey[OnCluster]()


@pytest.fixture(scope="session")
def cluster() -> None:
    """Skips where there is no cluster to work on."""
    if (reason := unusable()) is not None:
        pytest.skip(f"no cluster: {reason}")
    NamespacedKubectl("default").run("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))


@pytest.fixture
def namespace(cluster: None) -> Iterator[NamespacedKubectl]:
    """A new namespace that lets in nothing but restricted pods, and goes with the test."""
    kubectl = NamespacedKubectl(f"posttrain-e2e-{uuid.uuid4().hex[:8]}")
    metadata = {"name": kubectl.namespace, "labels": RESTRICTED}
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    yield kubectl
    # Waits for its pods, which hold what the next test asks for.
    kubectl.run("delete", "namespace", kubectl.namespace, seconds=_END_SECONDS)


@pytest.fixture
def quickstart(namespace: NamespacedKubectl, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OnCluster]:
    """The quickstart's inputs on a claim, and the operator of this checkout, which works in this namespace alone."""
    scene = OnCluster(namespace, image=IMAGE)
    request.node.stash[_SCENE] = scene
    scene.make_inputs()
    settings = {f"image_{stage}": IMAGE for stage in STAGES}
    settings |= {"namespaces": namespace.namespace, "lease_namespace": namespace.namespace, "first_backoff": "1s"}
    with operator_process(tmp_path / "operator", connection(), progress_interval="2s", **settings) as operator:
        scene.operator_log = operator.tail
        yield scene
        assert operator.end() == 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what the cluster shows: the namespace is gone afterwards."""
    report = yield
    scene = item.stash.get(_SCENE, None)
    if report.failed and report.when != "teardown" and scene is not None:
        report.sections.append(("cluster", scene.describe()))
    return report
