"""The kubelet and the nodes, over a cluster in memory: what becomes of pods."""

from typing import Final

from posttrain_contract.result import StageResult
from posttrain_operator import labels
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import Role
from support.memory_cluster import ENDED
from support.memory_controllers import is_gated
from support.viewed_cluster import ViewedCluster, stamp

TROUBLES: Final = ("ImagePullBackOff", "CreateContainerConfigError", "Unschedulable", "RunContainerError")


def start(cluster: ViewedCluster, pod: Ref) -> bool:
    """A pending pod runs, unless something keeps it; whether it does."""
    obj = cluster.objects[pod]
    if obj["status"]["phase"] != "Pending" or _stops(obj) or is_gated(cluster, obj):
        return False
    running = {"running": {"startedAt": stamp(cluster.clock())}}
    started = {"startTime": stamp(cluster.clock()), "conditions": [], "containerStatuses": [{"state": running}]}
    cluster.put(pod, status={"phase": "Running", **started})
    return True


def trouble(cluster: ViewedCluster, pod: Ref, reason: str) -> None:
    """A pending pod cannot start."""
    if reason == "Unschedulable":
        said = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "0/1 nodes are available"}
        cluster.put(pod, status={"conditions": [said]})
    else:
        waiting = {"image": "x", "state": {"waiting": {"reason": reason, "message": "no"}}}
        cluster.put(pod, status={"containerStatuses": [waiting]})


def end(cluster: ViewedCluster, pod: Ref, code: int, answer: StageResult | str = "", *, reason: str = "") -> None:
    """The container of a running pod ends; a server's is started again."""
    obj = cluster.objects[pod]
    told = answer if isinstance(answer, str) else answer.message_bytes().decode()
    now = stamp(cluster.clock())
    (container,) = obj["status"]["containerStatuses"]
    since = container.get("state", {}).get("running", {}).get("startedAt", now)
    ended: Json = {"exitCode": code, "startedAt": since, "finishedAt": now, "message": told}
    ended["reason"] = reason or ("Error" if code else "Completed")
    if obj["spec"].get("restartPolicy") == "Always" and not _stops(obj):
        again = {"state": {"running": {"startedAt": now}}, "lastState": {"terminated": ended}}
        cluster.put(pod, status={"containerStatuses": [again]})
    else:
        phase = "Failed" if code else "Succeeded"
        cluster.put(pod, status={"phase": phase, "containerStatuses": [{"state": {"terminated": ended}}]})


def evict(cluster: ViewedCluster, pod: Ref, *, own_fault: bool) -> None:
    """The kubelet throws a pod out, for its node's sake or for what it used itself."""
    message = 'Usage of EmptyDir volume "scratch" exceeds the limit "8Gi".'
    conditions: list[Json] = []
    if not own_fault:
        message = "The node was low on resource: memory."
        conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
    cluster.put(pod, status={"phase": "Failed", "reason": "Evicted", "message": message, "conditions": conditions})


def lose(cluster: ViewedCluster, pod: Ref) -> None:
    """The node of a pod is gone: the pod is to be deleted, and nobody there says that it ended."""
    lost = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]
    cluster.put(pod, status={"conditions": lost})
    cluster.stop(pod)


def vanish(cluster: ViewedCluster, pod: Ref) -> None:
    """A pod is removed, with or without its end being told."""
    del cluster.objects[pod]


def pods(cluster: ViewedCluster) -> list[Ref]:
    return cluster.of_kind("Pod")


def is_alive(cluster: ViewedCluster, pod: Ref) -> bool:
    return cluster.objects[pod]["status"]["phase"] not in ENDED


def is_running(cluster: ViewedCluster, pod: Ref) -> bool:
    return bool(cluster.objects[pod]["status"]["phase"] == "Running")


def is_server(cluster: ViewedCluster, pod: Ref) -> bool:
    return bool(cluster.objects[pod]["metadata"]["labels"][labels.ROLE] == Role.SERVERS)


def stopping(cluster: ViewedCluster) -> list[Ref]:
    """Pods that are being deleted."""
    return [pod for pod in pods(cluster) if _stops(cluster.objects[pod])]


def _stops(obj: Json) -> bool:
    return "deletionTimestamp" in obj["metadata"]
