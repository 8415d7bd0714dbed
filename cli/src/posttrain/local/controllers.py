"""The controllers of a local cluster, as pure functions: what a workload's pods should be, and its status.

They follow Kubernetes' Job and StatefulSet controllers and Kubeflow's training operator in what a workload of ours can
observe: pod names, labels, the PET_* environment, conditions and the clean-up of a failed gang.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain_operator.cluster import Json

Pods = Sequence[Json]
MasterPort = Callable[[str], int]
"""The rendezvous port of a PyTorchJob, by its name."""


@dataclass(frozen=True)
class Control:
    """One step of a controller."""

    create: tuple[Json, ...]
    stop: tuple[Json, ...]
    """Pods to end."""
    status: Json


def phase(pod: Json) -> str:
    """The phase of a pod."""
    return str(pod["status"]["phase"])


def control_job(job: Json, pods: Pods) -> Control:
    """Indexed Job without retries: all indexes succeed, or the first failure fails it."""
    failed = [pod for pod in pods if phase(pod) == "Failed"]
    done = [pod for pod in pods if phase(pod) == "Succeeded"]
    running = [pod for pod in pods if phase(pod) == "Running"]
    status: Json = {"active": len(running), "ready": len(running), "succeeded": len(done), "failed": len(failed)}
    if failed:
        return Control((), tuple(running), {**status, "conditions": [_true("Failed")]})
    if len(done) == job["spec"]["completions"]:
        return Control((), (), {**status, "conditions": [_true("Complete")]})
    missing = tuple(
        _pod(job, f"{job['metadata']['name']}-{index}", job["spec"]["template"], {"JOB_COMPLETION_INDEX": str(index)})
        for index in range(job["spec"]["completions"])
        if not _exists(pods, f"{job['metadata']['name']}-{index}")
    )
    return Control(missing, (), status)


def control_stateful_set(sts: Json, pods: Pods) -> Control:
    """All replicas at once; one that ends is made anew under the same name."""
    names = [f"{sts['metadata']['name']}-{index}" for index in range(sts["spec"]["replicas"])]
    ready = sum(1 for pod in pods if _is_ready(pod))
    missing = tuple(_pod(sts, name, sts["spec"]["template"], {}) for name in names if not _exists(pods, name))
    return Control(missing, (), {"replicas": len(pods), "readyReplicas": ready})


def control_pytorchjob(job: Json, pods: Pods, *, address: Callable[[str], str], master_port: MasterPort) -> Control:
    """A gang: it succeeds when all have, and a failed pod fails it and ends its siblings (cleanPodPolicy Running)."""
    members = _members(job)
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    alive = tuple(pod for pod in pods if phase(pod) in ("Pending", "Running"))
    if any(phase(pod) == "Failed" for pod in pods):
        return Control((), alive, {"conditions": [_true("Failed")]})
    if all(name in by_name and phase(by_name[name]) == "Succeeded" for name in members):
        return Control((), (), {"conditions": [_true("Succeeded")]})
    port = master_port(job["metadata"]["name"])
    missing = tuple(
        _pod(job, name, _worker(job)["template"], _gang_environment(job, members, rank, address(members[0]), port))
        for rank, name in enumerate(members)
        if name not in by_name
    )
    running = any(phase(pod) == "Running" for pod in pods)
    return Control(missing, (), {"conditions": [_true("Created"), *([_true("Running")] if running else [])]})


def _members(job: Json) -> list[str]:
    return [f"{job['metadata']['name']}-worker-{index}" for index in range(_worker(job)["replicas"])]


def _worker(job: Json) -> Json:
    worker: Json = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    return worker


def _gang_environment(job: Json, members: Sequence[str], rank: int, master: str, port: int) -> Mapping[str, str]:
    """What the training operator injects for torchrun."""
    return {
        "PET_NNODES": str(len(members)),
        "PET_NPROC_PER_NODE": str(job["spec"]["nprocPerNode"]),
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": master,
        "PET_MASTER_PORT": str(port),
    }


def _pod(owner: Json, name: str, template: Json, environment: Mapping[str, str]) -> Json:
    spec = copy.deepcopy(template["spec"])
    for container in spec["containers"]:
        container["env"] = [*container["env"], *({"name": k, "value": v} for k, v in environment.items())]
    metadata = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(template["metadata"]["labels"]),
        "ownerReferences": [_owner(owner)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def _owner(obj: Json) -> dict[str, Any]:
    metadata = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def _exists(pods: Pods, name: str) -> bool:
    return any(pod["metadata"]["name"] == name for pod in pods)


def _is_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def _true(kind: str) -> Json:
    return {"type": kind, "status": "True"}
