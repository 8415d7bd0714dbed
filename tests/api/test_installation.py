"""manifests/ and examples/ at a real API server: taken, restricted, and enough for the operator of one team."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import API_VERSION
from support import played_kueue
from support.api import Api
from support.api_client import Server
from support.control_plane import ControlPlane
from support.fault_proxy import FaultProxy, fault_proxy
from support.jobs import job
from support.manifests import FILES, FOLDERS, INSTALLING, ROOT, build, of_kind
from support.operator_process import kubeconfig, operator_process
from support.tools import Tools
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

TEAM: Final = "team-a"
NAMESPACES: Final = ("posttrain-system", "team", TEAM, "team-b")
RESTRICTED: Final = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
KUEUES_OWN: Final = ("ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass")
"""Kinds of Kueue that no test plays."""
QUICKSTART: Final = "../examples/quickstart/inputs"
CHILDREN: Final = {"FilterJob": "Job", "FineTuneJob": "PyTorchJob", "RLJob": "StatefulSet", "UploadJob": "Job"}
VERSIONS: Final = {"Job": "batch/v1", "PyTorchJob": "kubeflow.org/v1", "StatefulSet": "apps/v1"}


@pytest.fixture(scope="module")
def admin(own_control_plane: ControlPlane) -> Iterator[Api]:
    """An administrator of a cluster with the namespaces that the manifests are about."""
    if not own_control_plane.access.controllers:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager: put one beside the API server")
    with own_control_plane.access.api() as api:
        played_kueue.install(api)
        for name in NAMESPACES:
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
        yield api


@pytest.mark.parametrize("folder", [*FOLDERS, QUICKSTART])
def test_the_api_server_takes_what_a_folder_comes_to(
    own_control_plane: ControlPlane, admin: Api, tools: Tools, folder: str
) -> None:
    made = build(tools.program("kubectl"), folder)
    known = [obj for obj in made if obj["kind"] not in KUEUES_OWN]
    arguments = ("apply", "--dry-run=server", "--server-side", "--force-conflicts", "--filename", "-")
    space = () if folder != "samples" else ("--namespace", TEAM)
    done = own_control_plane.access.kubectl.run(*arguments, *space, stdin=yaml.safe_dump_all(known))
    assert (done.returncode, done.stderr) == (0, ""), "a warning is an error here"
    assert len(done.stdout.splitlines()) == len(known)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_taken_where_pods_must_be_restricted(
    own_control_plane: ControlPlane, admin: Api, path: Path
) -> None:
    arguments = ("apply", "--dry-run=server", "--namespace", TEAM, "--filename", str(path))
    done = own_control_plane.access.kubectl.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("folder", INSTALLING)
def test_a_restricted_namespace_lets_the_operators_pods_in(admin: Api, tools: Tools, folder: str) -> None:
    (deployment,) = of_kind(build(tools.program("kubectl"), folder), "Deployment")
    template = deployment["spec"]["template"]
    spec = {**template["spec"], "priorityClassName": "", "serviceAccountName": "default"}
    metadata = {"name": "operator", "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    admin.create(pod, namespace=deployment["metadata"]["namespace"], dry_run=True)


def test_an_operator_with_a_role_alone_works_in_its_namespace_and_asks_for_nothing_else(
    own_control_plane: ControlPlane, admin: Api, tools: Tools, tmp_path: Path
) -> None:
    access = own_control_plane.access
    made = yaml.safe_dump_all(build(tools.program("kubectl"), "overlays/namespaced"))
    access.kubectl("apply", "--server-side", "--filename", "-", stdin=made)
    account = f"/api/v1/namespaces/{TEAM}/serviceaccounts/posttrain-operator/token"
    request: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = str(admin.request("POST", account, body=request)["status"]["token"])
    server = Server(access.url, access.admin_token, access.ca_file)
    settings = {"namespaces": TEAM, "lease_namespace": TEAM, "sweep_interval": "1s"}
    with (
        fault_proxy(server.url, server.tls()) as proxy,
        operator_process(tmp_path, kubeconfig(proxy.url, token), **settings) as operator,
    ):
        for kind in CHILDREN:
            admin.create(job(kind, kind.lower()), namespace=TEAM)
        wait_for(lambda: all(has_child(admin, kind) for kind in CHILDREN), "the children of four jobs")
        assert operator.end() == 0
        assert [str(entry.request) for entry in proxy.passed if entry.status == 403] == []
        assert outside(proxy) == []


def has_child(api: Api, kind: str) -> bool:
    """Whether the operator has made what a job of a kind computes with, and said so."""
    child = CHILDREN[kind]
    wanted = f"posttrain.dev/kind={kind}"
    status = api.get(Ref(API_VERSION, kind, TEAM, kind.lower())).get("status", {})
    return "phase" in status and bool(api.list(VERSIONS[child], child, TEAM, labels=wanted))


def outside(proxy: FaultProxy) -> list[str]:
    """Requests for objects of other namespaces, or of all."""
    inside = f"/namespaces/{TEAM}/"
    return [str(each.request) for each in proxy.passed if each.request.resource and inside not in each.request.path]
