"""A cluster whose kinds come and go while the operator runs: the training operator is installed late, or anew."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from posttrain_operator.cluster import Ref
from support.api import Api
from support.control_plane import ControlPlane
from support.playground import Playground, playground
from support.pod_lives import works_until
from support.tools import Tools
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

CRD = Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "pytorchjobs.kubeflow.org")


@pytest.fixture(scope="module")
def admin(own_control_plane: ControlPlane) -> Iterator[Api]:
    """An administrator of a cluster of its own."""
    if not own_control_plane.access.controllers:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager: put one beside the API server")
    with own_control_plane.access.api() as api:
        yield api


@pytest.fixture
def ground(own_control_plane: ControlPlane, admin: Api, tmp_path: Path) -> Iterator[Playground]:
    """Begins without the training operator's kind."""
    uninstall(admin)
    with playground(own_control_plane.access, admin, tmp_path, sweep_interval="1s") as ground:
        yield ground
        assert ground.chronicle.illegal == []


def uninstall(api: Api) -> None:
    api.delete(CRD)
    wait_for(lambda: api.find(CRD) is None, "the definition to be gone")


def install(api: Api, tools: Tools) -> None:
    api.apply_text(CRD, tools.pytorchjob_crd.read_text("utf-8"))


def test_a_missing_kind_is_told_and_got_over(ground: Playground, admin: Api, tools: Tools) -> None:
    tuned = ground.submit("FineTuneJob")
    tuned.reach("Pending", "KindMissing")
    assert tuned.message == "the cluster has no kubeflow.org/v1 PyTorchJob; install its controller and custom resources"
    assert tuned.kstatus == "Failed"
    ground.submit("UploadJob").finish()
    install(admin, tools)
    tuned.finish()
    assert tuned.attempts == ["1 Succeeded 0 Succeeded"]


@pytest.mark.slow
def test_a_kind_that_goes_and_comes_takes_its_attempts_along(ground: Playground, admin: Api, tools: Tools) -> None:
    over = threading.Event()
    install(admin, tools)
    tuned = ground.submit("FineTuneJob", works_until(over))
    tuned.reach("Running")
    uninstall(admin)
    tuned.reach("Pending", "KindMissing")
    ground.submit("UploadJob").finish()
    install(admin, tools)
    tuned.reach("Running", attempt=2)
    over.set()
    tuned.finish()
    assert tuned.attempts == ["1 Lost ChildLost", "2 Succeeded 0 Succeeded"]
    assert ground.operator.alive
