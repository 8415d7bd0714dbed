"""A kubelet that runs nothing: what a pod does is told by a test."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_operator import labels
from support.api_client import ApiClient, Json, unless

NODE: Final = "played-node"
GONE: Final = (404, 409)
STOPPED: Final = StageResult(outcome="Preempted", exit_code=ExitCode.PREEMPTED, reason="Stopped", message="SIGTERM")


@dataclass
class PlayedPod:
    """One pod as its script sees it; each method is one step of a pod's life, told to the API server."""

    api: ApiClient
    raw: Json
    running: bool = False
    _started: str | None = None
    """Since when its container ran."""

    @property
    def name(self) -> str:
        found: str = self.raw["metadata"]["name"]
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.raw["metadata"].get("labels", {})
        return found

    @property
    def job(self) -> str:
        """The name of the object whose attempt it is."""
        return self.labels[labels.NAME]

    @property
    def kind(self) -> str:
        """The kind of that object."""
        return self.labels[labels.KIND]

    @property
    def role(self) -> str:
        """See ``labels.Role``."""
        return self.labels[labels.ROLE]

    @property
    def attempt(self) -> int:
        return int(self.labels[labels.ATTEMPT])

    @property
    def leads(self) -> bool:
        """Whether it is the first of its gang, which speaks for it."""
        index = self.labels.get("batch.kubernetes.io/job-completion-index")
        return "0" in (index, self.labels.get("training.kubeflow.org/replica-index"))

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.raw['metadata']['namespace']}/pods/{self.name}"

    async def schedule(self) -> None:
        """A node is chosen, unless its controller chose one."""
        if self.raw["spec"].get("nodeName"):
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name}, "target": target}
        await unless(GONE, self.api.create(f"{self.path}/binding", body))

    async def start(self) -> None:
        """Its container runs, and it is ready; one that runs already goes on."""
        if self.running:
            return
        await self.schedule()
        self.running, self._started = True, _now()
        await self.tell(
            phase="Running",
            startTime=self._started,
            conditions=[_condition("Ready", "True"), _condition("ContainersReady", "True")],
            containerStatuses=[self._container({"running": {"startedAt": self._started}}, ready=True)],
        )

    async def wait(self, reason: str, message: str) -> None:
        """Its container does not start, for a reason."""
        await self.schedule()
        state = {"waiting": {"reason": reason, "message": message}}
        await self.tell(phase="Pending", containerStatuses=[self._container(state, ready=False)])

    async def stay_unscheduled(self, message: str) -> None:
        """No node has room."""
        await self.tell(
            phase="Pending", conditions=[_condition("PodScheduled", "False", reason="Unschedulable", message=message)]
        )

    async def end(self, code: int, result: StageResult | None = None, *, reason: str = "") -> None:
        """Its container ends."""
        self.running = False
        terminated: Json = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "startedAt": self._started,
            "finishedAt": _now(),
        }
        if result is not None:
            terminated["message"] = result.message_bytes().decode()
        await self.tell(
            phase="Failed" if code else "Succeeded",
            conditions=[_condition("Ready", "False"), _condition("ContainersReady", "False")],
            containerStatuses=[self._container({"terminated": terminated}, ready=False)],
        )

    async def restart(self, code: int, *, reason: str) -> None:
        """Its container ends, and is started again in its place."""
        ended: Json = {"exitCode": code, "reason": reason, "startedAt": _now(), "finishedAt": _now()}
        container = self._container({"running": {"startedAt": _now()}}, ready=True)
        again = {**container, "restartCount": 1, "lastState": {"terminated": ended}}
        await self.tell(containerStatuses=[again])

    async def disrupt(self, *, reason: str, condition: str, message: str) -> None:
        """The cluster takes it away; nobody knows how its container ended."""
        self.running = False
        await self.tell(
            phase="Failed",
            reason=reason,
            message=message,
            conditions=[_condition("Ready", "False"), _condition("DisruptionTarget", "True", reason=condition)],
        )

    async def vanish(self) -> None:
        """It is removed at once, as of a node that is gone, or when it has ended."""
        uid = self.raw["metadata"]["uid"]
        await unless(GONE, self.api.delete(self.path, gracePeriodSeconds=0, preconditions={"uid": uid}))

    async def tell(self, **status: Any) -> None:
        await unless(GONE, self.api.merge(f"{self.path}/status", {"status": status}))

    def _container(self, state: Json, *, ready: bool) -> Json:
        spec = self.raw["spec"]["containers"][0]
        return {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        }


Life = Callable[[PlayedPod], Coroutine[Any, Any, None]]
"""What a pod does from its creation on."""


@dataclass
class Kubelet:
    """Lets every pod live its life, and ends those that are deleted."""

    api: ApiClient
    life: Life
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    _pods: dict[str, PlayedPod] = field(default_factory=dict)
    _lives: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _stopping: set[str] = field(default_factory=set)

    def see(self, event: str, raw: Json) -> None:
        """A pod as it is now."""
        uid = raw["metadata"]["uid"]
        if event == "DELETED":
            self._pods.pop(uid, None)
            if (task := self._lives.pop(uid, None)) is not None:
                task.cancel()
            return
        pod = self._pods.setdefault(uid, PlayedPod(self.api, raw))
        pod.raw = raw
        if "deletionTimestamp" not in raw["metadata"]:
            if uid not in self._lives:
                self._lives[uid] = self.spawn(self.life(pod))
        elif uid not in self._stopping:
            self._stopping.add(uid)
            self.spawn(self._stop(pod, self._lives.get(uid)))

    async def _stop(self, pod: PlayedPod, life: asyncio.Task[None] | None) -> None:
        """SIGTERM: what runs saves a checkpoint and ends, and the pod goes."""
        if life is not None:
            life.cancel()
            await asyncio.wait([life])
        if pod.running:
            await pod.end(ExitCode.PREEMPTED, STOPPED)
        await pod.vanish()


def _condition(kind: str, status: str, **more: str) -> Json:
    return {"type": kind, "status": status, "lastTransitionTime": _now(), **more}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
