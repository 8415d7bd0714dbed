"""The kinds that are kept in memory, and what is kept of each object: everything that a pass reads."""

import asyncio
import copy
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from golden.test_golden import CASES, load, readable, timeless
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe import job, kueue, pytorchjob, quota, statefulset
from posttrain_operator.observe.pods import observe_pod
from posttrain_operator.reconcile import Outcome, reconcile
from posttrain_operator.settings import Settings
from posttrain_operator.watched import APIS, CACHED, CHILDREN, OURS, RESOURCES, slim
from support.memory_cluster import MemoryCluster
from support.scene import SPECS, SUCCESS, Scene, failure, retried

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class SlimCluster(MemoryCluster):
    """Shows objects as the cache keeps them, and writes down which kinds are asked for."""

    asked: set[tuple[str, str]] = set()  # noqa: RUF012 - of all of them together

    async def get(self, ref: Ref) -> Json | None:
        self.asked.add((ref.api_version, ref.kind))
        raw = await super().get(ref)
        return slim(raw) if raw is not None else None

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        self.asked.add((api_version, kind))
        return [slim(raw) for raw in await super().list_objects(api_version, kind, namespace, wanted)]


def slimmed(cluster: MemoryCluster) -> SlimCluster:
    other = SlimCluster()
    for obj in cluster.objects.values():
        other.apply(obj)
    other.answers = cluster.answers
    return other


def one_pass(cluster: MemoryCluster, ref: Ref) -> tuple[list[str], list[Json], Any, Outcome]:
    """Everything that one pass does."""
    before = set(cluster.objects)
    outcome = asyncio.run(reconcile(cluster, ref, Settings(), now=NOON))
    created = [readable(obj) for other, obj in cluster.objects.items() if other not in before]
    return cluster.writes, created, timeless(cluster.objects[ref].get("status")), outcome


@pytest.mark.parametrize("case", CASES)
def test_a_pass_over_what_is_kept_does_what_a_pass_over_everything_does(case: str) -> None:
    ref, cluster = load(case)
    ref, again = load(case)
    assert one_pass(slimmed(again), ref) == one_pass(cluster, ref)


@pytest.mark.parametrize("kind", SPECS)
def test_a_life_by_what_is_kept_is_the_same_life(kind: str) -> None:
    lives = []
    for cluster in (MemoryCluster, SlimCluster):
        scene = Scene(kind, run={"retries": 3, "resources": {"gpus": 1}})
        (resource,) = scene.cluster.objects.values()
        scene.cluster = cluster()
        scene.cluster.apply(resource)
        lives.append(list(life(scene)))
    assert lives[0] == lives[1]
    assert lives[0][-1][0]["phase"] == "Succeeded"


def life(scene: Scene) -> Iterator[tuple[Json, int]]:
    """Half a gang, a failure, a preemption, and then success: the status and the number of writes after each step."""

    def told() -> tuple[Json, int]:
        return copy.deepcopy(scene.cluster.objects[scene.ref]["status"]), len(scene.cluster.writes)

    scene.settle()
    yield told()
    for code in (ExitCode.PEER_LOST, ExitCode.PREEMPTED):
        start(scene)
        yield told()
        scene.end_workers(code, failure(code))
        retried(scene)
        yield told()
    start(scene)
    scene.end_workers(0, SUCCESS)
    scene.settle()
    yield told()


def start(scene: Scene) -> None:
    for _ in range(2):  # servers, then their trainer
        scene.start_pods()
        scene.settle()


def test_every_kind_that_a_pass_asks_for_is_kept() -> None:
    SlimCluster.asked.clear()
    for case in CASES:
        ref, cluster = load(case)
        one_pass(slimmed(cluster), ref)
    queued = Scene("RLJob", run={"queue": "team"})
    one_pass(slimmed(queued.cluster), queued.ref)
    assert {(api.api_version, api.kind) for api in CACHED} == SlimCluster.asked


# Each kind on its own, with what the cases have not.

STATUS = {"conditions": [{"type": "Running", "status": "True"}], "readyReplicas": 2, "ready": 2}
CONTAINER = {
    "name": "stage",
    "image": "stage:1",
    "env": [{"name": "A", "value": "b"}],
    "resources": {"limits": {"nvidia.com/gpu": "4", "cpu": "1"}, "requests": {"cpu": "1"}},
}
POD: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "x-0", "namespace": "team", "uid": "1", "annotations": {"a": "b"}, "managedFields": [{}]},
    "spec": {"nodeName": "node", "volumes": [{}], "containers": [CONTAINER, {"name": "beside"}]},
    "status": {
        "phase": "Failed",
        "containerStatuses": [
            {"name": "beside", "state": {"terminated": {"exitCode": 0}}},
            {"name": "stage", "state": {"terminated": {"exitCode": 81, "reason": "Error", "message": "{}"}}},
        ],
    },
}
GARBLED: tuple[Any, ...] = (None, [], "text", 7, {"containers": "text"}, {"containers": [None, "text", {}]})


def test_of_a_pod_its_own_container_and_its_devices_are_known() -> None:
    kept = observe_pod(slim(POD))
    assert (kept.exit_code, kept.gpus) == (81, 4)
    whole = observe_pod(POD)
    assert {**vars(kept), "raw": None} == {**vars(whole), "raw": None}


@pytest.mark.parametrize("spec", GARBLED)
def test_of_a_garbled_pod_as_much_is_known_as_of_the_whole(spec: Any) -> None:
    pod = {**POD, "spec": spec}
    assert {**vars(observe_pod(slim(pod))), "raw": None} == {**vars(observe_pod(pod)), "raw": None}


@pytest.mark.parametrize(
    "spec",
    [
        {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": {"Worker": {"replicas": 8}}},
        {"pytorchReplicaSpecs": {"Worker": {"template": {}}}},
        {"pytorchReplicaSpecs": {"Worker": None}, "runPolicy": None},
        *GARBLED,
    ],
)
def test_of_a_pytorchjob_its_size_and_state_are_known(spec: Any) -> None:
    obj = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "x"}, "spec": spec}
    for whole in (obj, {**obj, "status": STATUS}):
        assert pytorchjob.size(slim(whole)) == pytorchjob.size(whole)
        assert pytorchjob.observe(slim(whole)) == pytorchjob.observe(whole)


@pytest.mark.parametrize("spec", [{"suspend": True}, {"suspend": False, "completions": 2, "template": {}}, *GARBLED])
def test_of_a_job_its_state_is_known(spec: Any) -> None:
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec, "status": STATUS}
    assert job.observe(slim(whole)) == job.observe(whole)


@pytest.mark.parametrize("spec", [{"replicas": 2, "template": {}}, {"replicas": 3}, *GARBLED])
def test_of_a_statefulset_its_readiness_is_known(spec: Any) -> None:
    whole = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "x"}, "spec": spec, "status": STATUS}
    assert statefulset.ready(slim(whole)) == statefulset.ready(whole)


@pytest.mark.parametrize("active", [True, False, None])
def test_of_a_workload_everything_that_is_observed_is_known(active: bool | None) -> None:
    whole = {
        "apiVersion": kueue.API_VERSION,
        "kind": kueue.WORKLOAD,
        "metadata": {
            "name": "x",
            "uid": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {kueue.JOB_UID: "8"},
            "ownerReferences": [{"uid": "8", "kind": "Job", "name": "x"}],
        },
        "spec": {"queueName": "team", "priority": 5, "active": active, "podSets": [{"template": {}}]},
        "status": {
            "admission": {"clusterQueue": "q"},
            "conditions": [
                {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient"},
                {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "by (UID: 1) due to x"},
            ],
        },
    }
    assert kueue.observe_workload(slim(whole)) == kueue.observe_workload(whole)
    child = {"metadata": {"uid": "8"}}
    assert kueue.workload_of(child, [slim(whole)]) == kueue.workload_of(child, [whole])
    assert "podSets" not in slim(whole)["spec"]


def test_of_a_queue_and_of_a_quota_everything_is_known() -> None:
    meta = {"name": "x", "namespace": "team", "uid": "7"}
    queue = {
        "apiVersion": kueue.API_VERSION,
        "kind": kueue.LOCAL_QUEUE,
        "metadata": meta,
        "spec": {"clusterQueue": "c"},
    }
    assert kueue.cluster_queues([slim(queue)]) == {("team", "x"): "c"}
    limits = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "5"}}}
    assert quota.observe_quota(slim(limits)) == quota.observe_quota(limits) is not None


def test_what_nobody_reads_is_not_kept() -> None:
    kept = slim(POD)
    assert set(kept["metadata"]) == {"name", "namespace", "uid"}
    assert kept["spec"] == {"containers": [{"name": "stage", "resources": CONTAINER["resources"]}, {"name": "beside"}]}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": POD["metadata"], "data": {"a": "b" * 9_000}}
    assert "data" not in slim(config)


def test_the_object_itself_stays_as_it_is() -> None:
    before = copy.deepcopy(POD)
    slim(POD)["spec"]["containers"].clear()
    assert before == POD


# How they are addressed.


def test_paths_are_those_of_the_api_server() -> None:
    assert APIS["v1", "Pod"].path() == "/api/v1/pods"
    assert APIS["v1", "Pod"].path("team", "x") == "/api/v1/namespaces/team/pods/x"
    assert APIS["batch/v1", "Job"].path("team") == "/apis/batch/v1/namespaces/team/jobs"


def test_only_what_carries_our_label_is_kept_of_common_kinds() -> None:
    assert {api.kind for api in CHILDREN if api.selector != OURS} == set()
    assert {api.kind for api in RESOURCES if api.selector is not None} == set()


def test_a_cluster_may_do_without_the_kinds_of_other_projects_and_without_no_other() -> None:
    assert {api.kind for api in CACHED if api.optional} == {"PyTorchJob", "Workload", "LocalQueue"}
