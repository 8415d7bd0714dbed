"""The cluster that the end-to-end tests work on: that of kubectl's context, if it is there to be tried on."""

import os
import uuid
from collections.abc import Callable, Generator, Iterator
from typing import Final, NoReturn

import pytest
from support.helper_pods import fill, tiny_archive
from support.hub_on_cluster import HubOnCluster
from support.installed_operator import InstalledOperator
from support.kubectl import NamespacedKubectl, has_kind, kustomize, unusable
from support.kueue_on_cluster import KueueOnCluster
from support.manifests import MANIFESTS
from support.on_cluster import OnCluster

_END_SECONDS: Final = 300.0
"""Longer than a pod may take to end."""
_SCENES: Final = pytest.StashKey[list[OnCluster]]()
_LAST_SEEN: Final = pytest.StashKey[list[str]]()
"""What the namespaces of a test showed when it was over."""
_OPERATOR: Final = pytest.StashKey[InstalledOperator]()
_HUB: Final = pytest.StashKey[HubOnCluster]()


def _go_without(what: str) -> NoReturn:
    """Skips a test on a person's machine. Where CI is true, nothing that was to be tried may go untried."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def cluster() -> None:
    """Skips where there is no cluster to work on."""
    if (reason := unusable()) is not None:
        _go_without(f"no cluster: {reason}")


@pytest.fixture(scope="session")
def known_hub(cluster: None) -> HubOnCluster:
    """The Hub whose address the operator is told; it is there where a test asks for ``hub``."""
    return HubOnCluster()


@pytest.fixture(scope="session")
def installed(known_hub: HubOnCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledOperator]:
    """The operator in the cluster, quicker to look and to try again than it is by default."""
    operator = InstalledOperator()
    try:
        operator.install(
            tmp_path_factory.mktemp("installation"),
            progress_interval="2s",
            first_backoff="1s",
            termination_grace="60s",
            hub_endpoint=known_hub.url,
        )
        yield operator
    finally:
        operator.reset()


@pytest.fixture
def operator(installed: InstalledOperator, request: pytest.FixtureRequest) -> Iterator[InstalledOperator]:
    """The operator in the cluster, which must not tell of any error during a test."""
    request.node.stash[_OPERATOR] = installed
    since = installed.now()
    yield installed
    assert installed.errors(since=since) == []


@pytest.fixture
def hub(known_hub: HubOnCluster, operator: InstalledOperator, request: pytest.FixtureRequest) -> Iterator[HubOnCluster]:
    """The stand-in Hub, in the cluster."""
    request.node.stash[_HUB] = known_hub
    try:
        known_hub.start()
        yield known_hub
    finally:
        known_hub.stop()


@pytest.fixture
def new_namespace(operator: InstalledOperator, request: pytest.FixtureRequest) -> Iterator[Callable[[], OnCluster]]:
    """Makes namespaces as teams have them, which let in nothing but restricted pods. They go with the test."""
    scenes: list[OnCluster] = request.node.stash.setdefault(_SCENES, [])

    def make() -> OnCluster:
        kubectl = NamespacedKubectl(f"posttrain-e2e-{uuid.uuid4().hex[:8]}")
        scenes.append(OnCluster(kubectl))
        kubectl.apply(kustomize(MANIFESTS / "team", namespace=kubectl.namespace))
        return scenes[-1]

    yield make
    try:
        assert [wrong for scene in scenes for wrong in scene.wrongs()] == []
    finally:
        request.node.stash[_LAST_SEEN] = [scene.describe() for scene in scenes]
        for scene in scenes:
            scene.kubectl.run("delete", "namespace", scene.kubectl.namespace, "--ignore-not-found", "--wait=false")
        for scene in scenes:
            scene.wait_until_gone(seconds=_END_SECONDS)  # its pods hold what the next test asks for


@pytest.fixture
def empty(new_namespace: Callable[[], OnCluster]) -> OnCluster:
    """A team's namespace, with nothing in it."""
    return new_namespace()


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tiny model and its problems."""
    return tiny_archive(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def new_team(new_namespace: Callable[[], OnCluster], tiny_inputs: bytes) -> Callable[[], OnCluster]:
    """Makes namespaces with the tiny inputs on a claim."""

    def make() -> OnCluster:
        scene = new_namespace()
        fill(scene, tiny_inputs)
        return scene

    return make


@pytest.fixture
def team(new_team: Callable[[], OnCluster]) -> OnCluster:
    """A namespace with the tiny inputs on a claim."""
    return new_team()


@pytest.fixture
def kueue(cluster: None) -> Iterator[KueueOnCluster]:
    """Kueue, where it is installed. A test names it before its namespaces, because those have to go first."""
    if not has_kind("clusterqueues.kueue.x-k8s.io"):
        _go_without("Kueue is not installed")
    queues = KueueOnCluster()
    yield queues
    queues.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what the cluster shows, or what it showed before the test's namespaces were deleted."""
    report = yield
    if report.failed:
        told = item.stash.get(_LAST_SEEN, None) or [scene.describe() for scene in item.stash.get(_SCENES, [])]
        report.sections.extend(("cluster", part) for part in told)
        if (hub := item.stash.get(_HUB, None)) is not None:
            report.sections.append(("the stand-in Hub", hub.tail()))
        if (operator := item.stash.get(_OPERATOR, None)) is not None:
            report.sections.append(("operator", operator.tail()))
    return report
