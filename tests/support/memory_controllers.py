"""The controllers beside the operator, over a cluster in memory; each acts on one object when a test says so.

The rules are upstream's: training-operator 1.9.4, and the Job and StatefulSet controllers of Kubernetes 1.36.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe import kueue
from support.memory_cluster import ENDED, owner_reference, pod_templates
from support.viewed_cluster import ViewedCluster, stamp

WORKLOADS: Final = ("Job", "PyTorchJob", "StatefulSet")
QUEUE: Final = "kueue.x-k8s.io/queue-name"
MADE_FOR: Final = "made-for"
"""Annotation of pods: the uid of the object whose attempt they are, also when all that led to it is gone."""


def act(cluster: ViewedCluster, ref: Ref) -> None:
    """The controller of a workload looks at it once."""
    _CONTROLLERS[ref.kind](cluster, ref)


def workloads(cluster: ViewedCluster) -> list[Ref]:
    """What controllers care for; what somebody else has by the name of a child does nothing."""
    return [ref for ref, obj in cluster.objects.items() if ref.kind in WORKLOADS and _owned(obj)]


def is_over(workload: Json) -> bool:
    """Whether a Job or PyTorchJob has ended."""
    return bool(_holding(workload) & {"Complete", "Succeeded", "Failed"})


def is_suspended(workload: Json) -> bool:
    spec = workload["spec"]
    return bool(spec.get("suspend") or spec.get("runPolicy", {}).get("suspend"))


def is_gated(cluster: ViewedCluster, pod: Json) -> bool:
    """Whether a queue keeps a pod of a StatefulSet from being scheduled."""
    owners = {owner["uid"] for owner in pod["metadata"]["ownerReferences"]}
    owned = [obj for obj in cluster.objects.values() if obj["metadata"]["uid"] in owners]
    return any(obj["kind"] == "StatefulSet" and _waits_in_queue(cluster, obj) for obj in owned)


def look_at_queues(cluster: ViewedCluster) -> None:
    """Kueue makes a Workload for every child with a queue."""
    have = {owner["uid"] for ref in cluster.of_kind("Workload") for owner in _owners(cluster.objects[ref])}
    for ref in workloads(cluster):
        child = cluster.objects[ref]
        queue = child["metadata"].get("labels", {}).get(QUEUE)
        if queue and child["metadata"]["uid"] not in have and not is_over(child):
            name = f"{ref.kind.lower()}-{ref.name}-{child['metadata']['uid']}"
            metadata = {"name": name, "namespace": ref.namespace, "ownerReferences": [owner_reference(child)]}
            cluster.apply(
                {
                    "apiVersion": kueue.API_VERSION,
                    "kind": "Workload",
                    "metadata": metadata,
                    "spec": {"queueName": queue, "priority": 0},
                    "status": {"conditions": [_told(cluster, "QuotaReserved", "False", "Pending", "no quota yet")]},
                }
            )


def admit(cluster: ViewedCluster, workload: Ref) -> None:
    """Kueue admits a Workload: its child goes on."""
    child = _child(cluster, workload)
    if child is not None and not is_over(cluster.objects[child]):
        held = [_told(cluster, kind, "True", "Admitted", "") for kind in ("QuotaReserved", "Admitted")]
        cluster.put(workload, status={"conditions": held})
        _suspend(cluster, child, suspend=False)


def preempt(cluster: ViewedCluster, workload: Ref) -> None:
    """Kueue takes an admission back: its child is suspended again."""
    child, obj = _child(cluster, workload), cluster.objects[workload]
    if child is None or "Admitted" not in _holding(obj) or is_over(cluster.objects[child]):
        return
    lost = [_told(cluster, kind, "False", "Pending", "preempted") for kind in ("QuotaReserved", "Admitted")]
    why = "Preempted to accommodate a workload (UID: u) due to prioritization in the ClusterQueue"
    taken = [_told(cluster, kind, "True", "Preempted", why) for kind in ("Evicted", "Preempted")]
    cluster.put(workload, status={"conditions": [*lost, *taken]})
    _suspend(cluster, child, suspend=True)
    if child.kind == "StatefulSet":
        for pod in cluster.owned_by(cluster.objects[child]):
            cluster.remove(pod)


def _suspend(cluster: ViewedCluster, child: Ref, *, suspend: bool) -> None:
    spec = cluster.objects[child]["spec"]
    if child.kind == "PyTorchJob":
        cluster.put(child, spec={"runPolicy": {**spec["runPolicy"], "suspend": suspend}})
    elif child.kind == "Job":
        cluster.put(child, spec={"suspend": suspend})


def _child(cluster: ViewedCluster, workload: Ref) -> Ref | None:
    uids = {owner["uid"] for owner in _owners(cluster.objects[workload])}
    return next((ref for ref, obj in cluster.objects.items() if obj["metadata"]["uid"] in uids), None)


def _waits_in_queue(cluster: ViewedCluster, child: Json) -> bool:
    if not child["metadata"].get("labels", {}).get(QUEUE):
        return False
    admitted = [ref for ref in cluster.of_kind("Workload") if "Admitted" in _holding(cluster.objects[ref])]
    return all(_child(cluster, ref) != Ref.of(child) for ref in admitted)


def _train(cluster: ViewedCluster, ref: Ref) -> None:
    """The training operator: a job is over when all its pods are, or one failed; a running pod that is deleted has."""
    job, pods = cluster.objects[ref], _pods(cluster, ref)
    if is_over(job):
        _stop(cluster, [pod for pod in pods.values() if _phase(cluster, pod) not in ENDED])
    elif is_suspended(job):
        _stop(cluster, list(pods.values()))
        _judge(cluster, ref, Running="False", Suspended="True")
    else:
        size = job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
        names = [f"{ref.name}-worker-{number}" for number in range(size)]
        _make(cluster, ref, [name for name in names if name not in pods])
        pods = _pods(cluster, ref)
        phases = {name: _counted(cluster, pod) for name, pod in pods.items()}
        if "Suspended" in _holding(job):
            _judge(cluster, ref, Suspended="False")
        if [*phases.values()] == ["Succeeded"] * size:
            _judge(cluster, ref, Running="False", Succeeded="True")
        elif "Failed" in phases.values():
            _judge(cluster, ref, Running="False", Failed="True")
        elif "Running" in phases.values():
            _judge(cluster, ref, Running="True")


def _run_job(cluster: ViewedCluster, ref: Ref) -> None:
    """The Job controller without a limit for failures: one pod that failed, or is deleted, and the Job has failed."""
    job, pods = cluster.objects[ref], _pods(cluster, ref)
    if is_over(job):
        _stop(cluster, [pod for pod in pods.values() if _phase(cluster, pod) not in ENDED])
        return
    if is_suspended(job):
        _stop(cluster, [pod for pod in pods.values() if _phase(cluster, pod) != "Succeeded"])
        _judge(cluster, ref, Suspended="True")
        return
    names = [f"{ref.name}-{index}-abcde" for index in range(job["spec"]["completions"])]
    if job.get("status", {}).get("failed") or any(_job_pod_failed(cluster, pod) for pod in pods.values()):
        _judge(cluster, ref, Failed="True")
    elif all(name in pods and _phase(cluster, pods[name]) == "Succeeded" for name in names):
        _judge(cluster, ref, Complete="True")
    else:
        _make(cluster, ref, [name for name in names if name not in pods])
        _judge(cluster, ref, Suspended="False")
    ready = [pod for pod in _pods(cluster, ref).values() if _phase(cluster, pod) == "Running"]
    cluster.put(ref, status={"ready": len(ready)})


def _serve(cluster: ViewedCluster, ref: Ref) -> None:
    """The StatefulSet controller: what is missing or has ended is made anew."""
    pods = _pods(cluster, ref)
    for pod in pods.values():
        if _phase(cluster, pod) in ENDED:
            cluster.remove(pod)
    names = [f"{ref.name}-{index}" for index in range(cluster.objects[ref]["spec"]["replicas"])]
    pods = _pods(cluster, ref)
    _make(cluster, ref, [name for name in names if name not in pods])
    ready = [pod for pod in _pods(cluster, ref).values() if _counted(cluster, pod) == "Running"]
    cluster.put(ref, status={"readyReplicas": len(ready)})


_CONTROLLERS: Final[Mapping[str, Callable[[ViewedCluster, Ref], None]]] = {
    "Job": _run_job,
    "PyTorchJob": _train,
    "StatefulSet": _serve,
}


def _pods(cluster: ViewedCluster, ref: Ref) -> dict[str, Ref]:
    return {pod.name: pod for pod in cluster.owned_by(cluster.objects[ref]) if pod.kind == "Pod"}


def _make(cluster: ViewedCluster, ref: Ref, names: list[str]) -> None:
    controller = cluster.objects[ref]
    template = next(pod_templates(controller["spec"]))
    for name in names:
        if Ref("v1", "Pod", ref.namespace, name) in cluster.objects:
            continue  # of an earlier controller with this name
        metadata = {
            "name": name,
            "namespace": ref.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": {MADE_FOR: next((str(owner["uid"]) for owner in _owners(controller)), "")},
            "ownerReferences": [owner_reference(controller)],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        cluster.apply({**pod, "status": {"phase": "Pending"}})


def _stop(cluster: ViewedCluster, pods: list[Ref]) -> None:
    for pod in pods:
        cluster.remove(pod)


def _judge(cluster: ViewedCluster, ref: Ref, **told: str) -> None:
    """Sets conditions; what says nothing new is not written."""
    old = {c["type"]: c for c in cluster.objects[ref].get("status", {}).get("conditions", [])}
    new = {kind: _told(cluster, kind, status, f"Told{kind}", "") for kind, status in told.items()}
    changed = {kind: c for kind, c in new.items() if old.get(kind, {}).get("status", "False") != c["status"]}
    if changed:
        cluster.put(ref, status={"conditions": [*{**old, **changed}.values()]})


def _told(cluster: ViewedCluster, kind: str, status: str, reason: str, message: str) -> Json:
    since = stamp(cluster.clock())
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def _holding(obj: Json) -> set[str]:
    return {c["type"] for c in obj.get("status", {}).get("conditions", []) if c["status"] == "True"}


def _phase(cluster: ViewedCluster, pod: Ref) -> str:
    return str(cluster.objects[pod]["status"]["phase"])


def _counted(cluster: ViewedCluster, pod: Ref) -> str:
    """The phase as the training operator counts it."""
    phase, stops = _phase(cluster, pod), "deletionTimestamp" in cluster.objects[pod]["metadata"]
    return "Failed" if phase == "Running" and stops else phase


def _job_pod_failed(cluster: ViewedCluster, pod: Ref) -> bool:
    phase, stops = _phase(cluster, pod), "deletionTimestamp" in cluster.objects[pod]["metadata"]
    return phase == "Failed" or (stops and phase != "Succeeded")


def _owned(obj: Json) -> bool:
    return any(True for _ in _owners(obj))


def _owners(obj: Json) -> Iterator[Any]:
    yield from obj["metadata"].get("ownerReferences", [])
