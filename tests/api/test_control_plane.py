"""The control plane of these tests is what it claims to be, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from posttrain_operator.cluster import Json, Ref
from support.api import Api, ApiError, Kubectl
from support.control_plane import GROUP, Access, ControlPlane
from support.jobs import job
from support.tools import Tools
from support.waiting import wait_for

TESTS = Path(__file__).parents[1]
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "thing"}}


def config_map(namespace: str) -> Ref:
    return Ref("v1", "ConfigMap", namespace, "thing")


def test_server_and_client_are_of_one_version(api: Api, kubectl: Kubectl) -> None:
    version = api.request("GET", "/version")["gitVersion"]
    assert version.startswith("v1.")
    assert json.loads(kubectl("version", "--client", "--output", "json"))["clientVersion"]["gitVersion"] == version


def test_dependents_follow_their_owner(controllers: None, api: Api, namespace: str) -> None:
    owner = api.create({**CONFIG_MAP, "metadata": {"name": "owner"}}, namespace=namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    api.create({**CONFIG_MAP, "metadata": {"name": "thing", "ownerReferences": [reference]}}, namespace=namespace)
    api.delete(Ref("v1", "ConfigMap", namespace, "owner"))
    wait_for(lambda: api.find(config_map(namespace)) is None, "the dependent's end", seconds=60)


def test_dependents_of_our_kinds_follow_too(controllers: None, api: Api, namespace: str) -> None:
    """The garbage collector knows of kinds that were there when it started, and of others late."""
    owner = api.create(job(), namespace=namespace)
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": "job",
        "uid": owner["metadata"]["uid"],
    }
    api.create({**CONFIG_MAP, "metadata": {"name": "thing", "ownerReferences": [reference]}}, namespace=namespace)
    api.delete(Ref.of(owner))
    wait_for(lambda: api.find(config_map(namespace)) is None, "the dependent's end", seconds=60)


def test_a_job_gets_a_pod_that_stays_pending(controllers: None, api: Api, namespace: str) -> None:
    container = {"name": "main", "image": "example.invalid/none:1"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"template": template}
    api.create(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec}, namespace=namespace
    )
    wait_for(lambda: len(api.list("v1", "Pod", namespace)) == 1, "the Job's pod", seconds=60)
    (pod,) = api.list("v1", "Pod", namespace)
    assert pod["status"]["phase"] == "Pending"


def test_the_operator_may_do_what_a_role_says(control_plane: Access, api: Api, namespace: str) -> None:
    meta = {"name": "reader", "namespace": namespace}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    rbac = "rbac.authorization.k8s.io"
    role: Json = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]}
    binding: Json = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": rbac, "kind": "Group", "name": GROUP}],
    }
    api.create(CONFIG_MAP, namespace=namespace)
    with control_plane.api("operator") as operator:
        with pytest.raises(ApiError) as refused:
            operator.get(config_map(namespace))
        assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
        api.create(role)
        api.create(binding)
        wait_for(lambda: _may_read(operator, namespace), "the Role's effect", seconds=60)
        with pytest.raises(ApiError, match="cannot delete"):
            operator.delete(config_map(namespace))


def _may_read(operator: Api, namespace: str) -> bool:
    try:
        return bool(operator.get(config_map(namespace)))
    except ApiError:
        return False


def test_a_watch_tells_of_changes_in_their_order(api: Api, namespace: str) -> None:
    created = api.create(CONFIG_MAP, namespace=namespace)
    api.patch(config_map(namespace), {"data": {"a": "b"}})
    api.delete(config_map(namespace))
    changes = api.watch("v1", "ConfigMap", namespace, resource_version=created["metadata"]["resourceVersion"])
    assert [next(changes).type for _ in range(2)] == ["MODIFIED", "DELETED"]


def test_a_name_is_taken_once(api: Api, namespace: str) -> None:
    api.create(CONFIG_MAP, namespace=namespace)
    with pytest.raises(ApiError) as refused:
        api.create(CONFIG_MAP, namespace=namespace)
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_api_server_comes_back_with_everything(own_control_plane: ControlPlane, number: signal.Signals) -> None:
    before = own_control_plane.access
    with before.api() as api:
        made = api.create({**CONFIG_MAP, "metadata": {"generateName": "kept-"}}, namespace="default")
        own_control_plane.stop_api_server(number)
        assert not api.ready()
        own_control_plane.start_api_server()
        assert api.get(Ref.of({**CONFIG_MAP, **made})) == made
    after = own_control_plane.access
    assert after.url == before.url
    assert after.pids["kube-apiserver"] != before.pids["kube-apiserver"]
    assert after.pids["etcd"] == before.pids["etcd"]


_OWNER = """
import os, sys, time
from pathlib import Path
from support.control_plane import ControlPlane
from support.keeper import shared_control_plane
from support.tools import Tools

tools = Tools(Path(sys.argv[3]), Path(sys.argv[4]))
if sys.argv[1] == "shared":
    print(shared_control_plane(Path(sys.argv[2]), tools, owner=os.getpid()).pids, flush=True)
    time.sleep(600)
with ControlPlane(Path(sys.argv[2]), tools) as plane:
    print(plane.access.pids, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["shared", "own"])
def test_nothing_outlives_an_owner_that_is_killed(tools: Tools, tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", _OWNER, how, str(tmp_path), str(tools.programs), str(tools.pytorchjob_crd)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        started = [process for process in psutil.process_iter() if _works_in(process, tmp_path)]
        assert {process.name() for process in started} >= {"etcd", "kube-apiserver"}
        owner.kill()
    wait_for(lambda: not any(process.is_running() for process in started), "the end of all programs", seconds=60)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False
