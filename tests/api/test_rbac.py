"""The operator may do what it does, and nothing else: manifests/base/rbac.yaml against what it is seen to ask for."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import yaml
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import QUEUE
from support import played_kueue
from support.api import Api
from support.api_client import Server
from support.control_plane import ControlPlane
from support.fault_proxy import FaultProxy, fault_proxy
from support.faults import Request, Watches
from support.manifests import MOST_GRANTS, Right, rights
from support.operator_process import kubeconfig
from support.playground import PlayedJob, Playground, playground
from support.pod_lives import at_attempt, fails, runs
from support.waiting import wait_for
from support.watch_faults import silent

pytestmark = pytest.mark.timeout(300)

MANIFEST: Final = Path(__file__).parents[2] / "manifests/base/rbac.yaml"
SYSTEM: Final = "posttrain-system"
QUOTA: Final[Json] = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "plenty"},
    "spec": {"hard": {"pods": "99"}},
}


def rules() -> list[Json]:
    """The rules of every Role and ClusterRole."""
    documents = yaml.safe_load_all(MANIFEST.read_text("utf-8"))
    return [rule for document in documents for rule in document.get("rules", [])]


def granted() -> list[Right]:
    return rights([{"rules": rules()}])


def test_it_grants_little() -> None:
    all_of_it = granted()
    assert len(all_of_it) == len(set(all_of_it)) <= MOST_GRANTS
    assert not [right for right in all_of_it if "*" in "".join(right)]
    assert not [right for right in all_of_it if right[1].startswith("secrets")]
    assert not [rule for rule in rules() if "nonResourceURLs" in rule]


def test_no_resource_but_its_own_is_written_whole() -> None:
    """What belongs to users and controllers is read, created and deleted, and never changed; Services are kept."""
    changed = {resource for _, resource, verb in granted() if verb in ("update", "patch", "deletecollection")}
    assert changed == {
        "filterjobs/status",
        "finetunejobs/status",
        "rljobs/status",
        "uploadjobs/status",
        "leases",
        "services",
    }


@pytest.fixture(scope="module")
def admin(own_control_plane: ControlPlane) -> Iterator[Api]:
    """An administrator of a cluster of its own, in which everything is installed."""
    if not own_control_plane.access.controllers:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager: put one beside the API server")
    with own_control_plane.access.api() as api:
        played_kueue.install(api)
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        own_control_plane.access.kubectl("apply", "--filename", str(MANIFEST))
        yield api


def token(api: Api) -> str:
    """A token of the ServiceAccount that the manifest makes."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/posttrain-operator/token"
    return str(api.request("POST", path, body=request)["status"]["token"])


def test_it_grants_exactly_what_is_asked_for(own_control_plane: ControlPlane, admin: Api, tmp_path: Path) -> None:
    access = own_control_plane.access
    server = Server(access.url, access.admin_token, access.ca_file)
    # No event comes, so that everything is found by comparing lists, which asks for more.
    with (
        fault_proxy(server.url, server.tls(), Watches(silent(0))) as proxy,
        playground(
            access,
            admin,
            tmp_path,
            connection=kubeconfig(proxy.url, token(admin)),
            namespaces="",
            lease_namespace=SYSTEM,
            sweep_interval="1s",
        ) as ground,
    ):
        live(ground, admin)
        assert ground.operator.end() == 0
        assert ground.chronicle.illegal == []
        assert refused(proxy) == []
        assert set(granted()) - asked(proxy) == set(), "it is granted, and nothing needs it"
        assert asked(proxy) - set(granted()) == set()


def live(ground: Playground, api: Api) -> None:
    """Everything that can happen to jobs, as far as it needs rights."""
    gone = {"ttlAfterFinished": "1s"}
    succeeding = [ground.submit(kind, run=gone) for kind in ("FilterJob", "FineTuneJob", "RLJob", "UploadJob")]
    queued = [ground.submit(kind, run={"queue": "team"}) for kind in ("FilterJob", "FineTuneJob", "RLJob")]
    api.create(played_kueue.local_queue("team"), namespace=ground.namespace)
    api.create(QUOTA, namespace=ground.namespace)
    retried = ground.submit(life=at_attempt({1: fails(ExitCode.STORAGE)}), run={"retries": 1})
    stopped = [ground.submit(kind, runs) for kind in ("FilterJob", "FineTuneJob", "RLJob")]
    hindered = hinder(ground, api)
    for job in stopped:
        job.reach("Running")
        touch(api, job)
        spoil_services(api, job)
        job.edit(suspend=True)
    admit_until_ended(api, queued)
    for job in (*succeeding, *queued, retried, hindered):
        job.finish()
    for job in stopped:
        job.wait(partial(has_attempts, job, ["1 Suspended Suspended"]), "be stopped")
    for job in succeeding:
        job.wait(partial(has_no_children, job), "lose its children")


def hinder(ground: Playground, api: Api) -> PlayedJob:
    """A job whose child's name was taken, and is no more."""
    name = ground.name()
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.invalid/a:1"}]}}
    theirs = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"{name}-upload-1"}}
    foreign = api.create({**theirs, "spec": {"suspend": True, "template": template}}, namespace=ground.namespace)
    job = ground.submit("UploadJob", name=name)
    job.reach("Pending", "NameTaken")
    api.delete(Ref.of(foreign))
    job.edit(retries=1)
    return job


def touch(api: Api, job: PlayedJob) -> None:
    """Somebody changes the children that nobody watches."""
    for child in job.children:
        if child["kind"] in ("ConfigMap", "Service"):
            api.patch(Ref.of(child), {"metadata": {"annotations": {"touched": "yes"}}})


def spoil_services(api: Api, job: PlayedJob) -> None:
    """Somebody changes what rollout servers are found by; it is changed back."""
    for service in [Ref.of(child) for child in job.children if child["kind"] == "Service"]:
        api.patch(service, {"spec": {"publishNotReadyAddresses": None}})
        wait_for(lambda: bool(api.get(service)["spec"].get("publishNotReadyAddresses")), f"{service} to be mended")  # noqa: B023


def admit_until_ended(api: Api, jobs: Iterable[PlayedJob]) -> None:
    """Kueue admits every child as soon as there is one."""
    admitted: set[str] = set()

    def ended() -> bool:
        for child in [child for job in jobs for child in job.children if QUEUE in child["metadata"]["labels"]]:
            if child["metadata"]["uid"] not in admitted:
                admitted.add(child["metadata"]["uid"])
                played_kueue.admit(api, child)
        return all(job.status.finished for job in jobs)

    wait_for(ended, "the jobs in the queue to end")


def has_attempts(job: PlayedJob, attempts: list[str]) -> bool:
    return job.attempts == attempts


def has_no_children(job: PlayedJob) -> bool:
    return job.children == []


def asked(proxy: FaultProxy) -> set[Right]:
    """What the operator was seen to ask for, but for what everybody may."""
    requests = [entry.request for entry in proxy.passed if entry.request.resource]
    return {(group_of(request), request.resource, request.verb) for request in requests}


def group_of(request: Request) -> str:
    first, second, *_ = request.path.strip("/").split("/")
    return second if first == "apis" else ""


def refused(proxy: FaultProxy) -> list[str]:
    return [str(entry.request) for entry in proxy.passed if entry.status == 403]
