"""Plays the training operator 1.9.4: a PyTorchJob's pods, and the conditions that it writes."""

import asyncio
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from support.api_client import ApiClient, Json, unless
from support.kubelet import GONE, NODE

_PREFIX: Final = "training.kubeflow.org"


@dataclass
class TrainingOperator:
    """One worker, as upstream's default."""

    api: ApiClient
    _jobs: dict[str, Json] = field(default_factory=dict)
    _pods: dict[str, Json] = field(default_factory=dict)
    _due: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _queued: set[str] = field(default_factory=set)

    def see_job(self, event: str, job: Json) -> None:
        uid = job["metadata"]["uid"]
        if event == "DELETED":
            self._jobs.pop(uid, None)
            return
        self._jobs[uid] = job
        self._enqueue(uid)

    def see_pod(self, event: str, pod: Json) -> None:
        if event == "DELETED":
            self._pods.pop(pod["metadata"]["uid"], None)
        else:
            self._pods[pod["metadata"]["uid"]] = pod
        if (owner := _owner(pod)) in self._jobs:
            self._enqueue(owner)

    async def run(self) -> None:
        while True:
            uid = await self._due.get()
            self._queued.discard(uid)
            if (job := self._jobs.get(uid)) is not None and "deletionTimestamp" not in job["metadata"]:
                await self._reconcile(job)

    def _enqueue(self, uid: str) -> None:
        if uid not in self._queued:
            self._queued.add(uid)
            self._due.put_nowait(uid)

    async def _reconcile(self, job: Json) -> None:
        pods = [pod for pod in self._pods.values() if _owner(pod) == job["metadata"]["uid"]]
        status = copy.deepcopy(job.get("status", {}))
        told = _Conditions(job, status)
        if told.holds("Failed") or told.holds("Succeeded"):
            await self._delete([pod for pod in pods if _phase(pod) in ("Running", "Pending")])
        elif job["spec"]["runPolicy"].get("suspend"):
            await self._delete(pods)
            told.suspend()
        else:
            told.resume()
            for replica, index in _replicas(job):
                if not any(_is(pod, replica, index) for pod in pods):
                    await self._create(job, replica, index)
            _count(job, status, pods)
            told.judge()
        if status != job.get("status", {}):
            stored = await unless(GONE, self.api.merge(f"{_path(job)}/status", {"status": status}))
            if stored is not None and job["metadata"]["uid"] in self._jobs:
                self._jobs[job["metadata"]["uid"]] = stored

    async def _create(self, job: Json, replica: str, index: int) -> None:
        template = job["spec"]["pytorchReplicaSpecs"][replica]["template"]
        metadata = job["metadata"]
        own = {
            f"{_PREFIX}/operator-name": "pytorchjob-controller",
            f"{_PREFIX}/job-name": metadata["name"],
            f"{_PREFIX}/replica-type": replica.lower(),
            f"{_PREFIX}/replica-index": str(index),
        }
        owner = {
            "apiVersion": job["apiVersion"],
            "kind": job["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{metadata['name']}-{replica.lower()}-{index}",
                "labels": {**template["metadata"].get("labels", {}), **own},
                "ownerReferences": [owner],
            },
            # Bound at once: only a pod on a node has a grace when it is deleted.
            "spec": {**template["spec"], "nodeName": NODE},
        }
        # Also in a namespace that is going: there nothing may be created.
        created = await unless((403, *GONE), self.api.create(f"/api/v1/namespaces/{metadata['namespace']}/pods", pod))
        if created is not None:
            self._pods[created["metadata"]["uid"]] = created

    async def _delete(self, pods: list[Json]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            if "deletionTimestamp" not in metadata:
                path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
                await unless(GONE, self.api.delete(path, preconditions={"uid": metadata["uid"]}))


@dataclass
class _Conditions:
    """The conditions of a job's status, changed by upstream's rules."""

    job: Json
    status: Json

    def holds(self, kind: str) -> bool:
        return any(c["type"] == kind and c["status"] == "True" for c in self.status.get("conditions", []))

    def suspend(self) -> None:
        for counts in self.status.get("replicaStatuses", {}).values():
            counts["active"] = 0
        if self.holds("Running"):
            self._set("Running", "False", "Suspended", "is suspended.")
        if not self.holds("Suspended"):
            self._set("Suspended", "True", "Suspended", "is suspended.")

    def resume(self) -> None:
        if not self.status.get("conditions"):
            self._set("Created", "True", "Created", "is created.")
        if self.holds("Suspended"):
            self._set("Suspended", "False", "Resumed", "is resumed.")
            self.status["startTime"] = _now()

    def judge(self) -> None:
        """Says what the counts of the workers mean; there is no master."""
        self.status.setdefault("startTime", _now())
        count = self.status["replicaStatuses"]["Worker"]
        if count["succeeded"] == self.job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]:
            self._set("Succeeded", "True", "Succeeded", "is successfully completed.")
        elif count["active"]:
            self._set("Running", "True", "Running", "is running.")
        if count["failed"]:
            self._set("Failed", "True", "Failed", f"is failed because {count['failed']} Worker replica(s) failed.")

    def _set(self, kind: str, status: str, reason: str, message: str) -> None:
        if self.holds("Failed"):
            return
        reason = f"PyTorchJob{reason}"
        conditions = self.status.setdefault("conditions", [])
        old = next((c for c in conditions if c["type"] == kind), None)
        if old is not None and (old["status"], old["reason"]) == (status, reason):
            return
        now = _now()
        since = old["lastTransitionTime"] if old is not None and old["status"] == status else now
        kept = [c for c in conditions if c["type"] != kind]
        if kind in ("Failed", "Succeeded"):
            kept = [{**c, "status": "False"} if c["type"] == "Running" else c for c in kept]
            self.status["completionTime"] = now
        new = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": f"PyTorchJob {self.job['metadata']['name']} {message}",
            "lastUpdateTime": now,
            "lastTransitionTime": since,
        }
        self.status["conditions"] = [*kept, new]


def _count(job: Json, status: Json, pods: list[Json]) -> None:
    """Counts as upstream: a running pod that is being deleted has failed."""
    counted: Json = {}
    for replica in job["spec"]["pytorchReplicaSpecs"]:
        states = [_state(pod) for pod in pods if _is(pod, replica)]
        selector = f"{_PREFIX}/job-name={job['metadata']['name']},{_PREFIX}/operator-name=pytorchjob-controller"
        counted[replica] = {
            "active": states.count("Running"),
            "succeeded": states.count("Succeeded"),
            "failed": states.count("Failed"),
            "selector": f"{selector},{_PREFIX}/replica-type={replica.lower()}",
        }
    status["replicaStatuses"] = counted


def _state(pod: Json) -> str:
    phase = _phase(pod)
    return "Failed" if phase == "Running" and "deletionTimestamp" in pod["metadata"] else phase


def _replicas(job: Json) -> Iterator[tuple[str, int]]:
    for replica, spec in job["spec"]["pytorchReplicaSpecs"].items():
        for index in range(spec["replicas"]):
            yield replica, index


def _is(pod: Json, replica: str, index: int | None = None) -> bool:
    labels = pod["metadata"]["labels"]
    same = labels[f"{_PREFIX}/replica-type"] == replica.lower()
    return same and index in (None, int(labels[f"{_PREFIX}/replica-index"]))


def _phase(pod: Json) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _owner(pod: Json) -> str:
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _path(job: Json) -> str:
    metadata = job["metadata"]
    return f"/apis/kubeflow.org/v1/namespaces/{metadata['namespace']}/pytorchjobs/{metadata['name']}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
