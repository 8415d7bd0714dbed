"""What the tests against a real API server share: one control plane a run, one namespace a test.

Without the programs, and without Go to build them, the tests are skipped, but for a run with CI=true, where they fail.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.api import Api, Kubectl
from support.api_client import Server
from support.control_plane import Access, ControlPlane, fresh_namespace
from support.keeper import shared_control_plane
from support.playground import Playground, playground
from support.tools import NoToolsError, Tools, find_tools

_HERE = Path(__file__).parent
_FOUND = pytest.StashKey[Tools | NoToolsError]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Has the programs built now, when they are not there yet: it takes minutes, and a test may not."""
    ours = [item for item in items if item.path.is_relative_to(_HERE)]
    if config.option.collectonly or not ours:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            config.stash[_FOUND] = find_tools()
    except NoToolsError as error:
        config.stash[_FOUND] = error
        for item in ours if os.environ.get("CI") != "true" else ():
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config) -> Tools:
    """Where the programs are."""
    found = pytestconfig.stash[_FOUND]
    if isinstance(found, NoToolsError):
        pytest.fail(str(found), pytrace=False)
    return found


@pytest.fixture(scope="session")
def control_plane(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Access:
    """The run's control plane. Other tests use it at the same time: it is not to be disturbed."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        return shared_control_plane(base.parent / "control-plane", tools, owner=os.getppid())
    return shared_control_plane(base / "control-plane", tools, owner=os.getpid())


@pytest.fixture(scope="session")
def server(control_plane: Access) -> Server:
    """The run's API server, for asynchronous clients and the fault proxy."""
    return Server(control_plane.url, control_plane.admin_token, control_plane.ca_file)


@pytest.fixture(scope="module")
def own_control_plane(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for the tests of one file, whose API server they may stop and start."""
    with ControlPlane(tmp_path_factory.mktemp("own-control-plane"), tools) as plane:
        yield plane


@pytest.fixture(scope="session")
def api(control_plane: Access) -> Iterator[Api]:
    """An administrator's client."""
    with control_plane.api() as client:
        yield client


@pytest.fixture(scope="session")
def kubectl(control_plane: Access) -> Kubectl:
    """kubectl as administrator."""
    return control_plane.kubectl


@pytest.fixture
def controllers(control_plane: Access) -> None:
    """For a test that needs garbage collection, quotas, or the pods of Jobs and StatefulSets."""
    if not control_plane.controllers:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager: put one beside the API server")


@pytest.fixture
def namespace(control_plane: Access, api: Api) -> Iterator[str]:
    """A namespace of the test's own."""
    with fresh_namespace(control_plane, api) as name:
        yield name


@pytest.fixture(scope="module")
def _ground(
    control_plane: Access, api: Api, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Playground]:
    if not control_plane.controllers:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager: put one beside the API server")
    settings = getattr(request.module, "SETTINGS", {})
    with playground(control_plane, api, tmp_path_factory.mktemp("ground"), **settings) as ground:
        yield ground


@pytest.fixture
def ground(_ground: Playground) -> Iterator[Playground]:
    """The playground of a test file, whose operator has the ``SETTINGS`` of the file, if any.

    A test fails, too, when any status was seen during it that must not be.
    """
    yield _ground
    assert _ground.chronicle.illegal == []
    assert _ground.players.failures == []
