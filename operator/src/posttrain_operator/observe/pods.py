"""Pods: how they are, what they answered, and which one failed first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult

from posttrain_operator import labels
from posttrain_operator.api.quantities import moment
from posttrain_operator.cluster import Json
from posttrain_operator.observe.obstacles import Obstacle, observe_obstacle
from posttrain_operator.observe.raw import integer, mapping, mappings, text
from posttrain_operator.observe.workload import true_conditions

_NODE_PRESSURE: Final = "The node "
"""How the kubelet begins an eviction that the node needed; one that the pod brought about names its volume."""


@dataclass(frozen=True)
class PodFacts:
    """One pod of an attempt."""

    name: str
    role: str
    phase: str
    created: datetime | None
    """By the API server's clock."""
    started: datetime | None
    """When its container ran first, by its node's clock."""
    deleted: bool
    """Whether somebody has asked for its end."""
    exit_code: int | None
    """Exit status of its container, once that ended; of a restarted one, of its last run."""
    reason: str | None
    """The kubelet's word for the end, such as OOMKilled or Evicted."""
    message: str
    """The cluster's sentence for the end of the whole pod, such as why it was evicted."""
    result: StageResult | None
    """What the stage answered."""
    answer: str
    """What stands where the result is expected; of a container that cannot run, why."""
    finished_at: datetime | None
    disrupted: bool
    """Whether the cluster takes or took it away: preemption, eviction, a drained or lost node."""
    obstacle: Obstacle | None
    """What keeps it from starting."""
    failed_init: str | None
    """The init container that ended badly, so that its own container never ran."""
    gpus: int
    """GPUs, or other devices, that it holds."""
    raw: Json

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def failed(self) -> bool:
        """Whether it ended badly; of a pod whose node is gone nobody knows an exit status."""
        return self.phase == "Failed" or self.exit_code not in (None, 0)

    @property
    def running(self) -> bool:
        """Whether its container is at work."""
        return self.phase == "Running"

    @property
    def evicted(self) -> bool:
        """Whether the kubelet threw it out, for the node's sake or for what it used itself."""
        return self.reason == "Evicted"

    @property
    def rank(self) -> int:
        """How likely its end is the cause of the others' ends, 0 for the likeliest, see ``first_failure``."""
        if self.disrupted:
            return 1
        stopped = self.exit_code == ExitCode.PEER_LOST or ExitCode.is_preemption(self.exit_code)
        if self.deleted and (stopped or self.exit_code == ExitCode.KILLED):
            return 3
        return 2 if stopped else 0


CONSEQUENCE: Final = 2
"""From this rank on, the end of a pod follows from something that happened elsewhere."""


def observe_pod(pod: Json) -> PodFacts:
    """The facts of a pod; what is garbled counts as absent."""
    metadata, status = mapping(pod.get("metadata")), mapping(pod.get("status"))
    container = _own_container(pod)
    terminated = _terminated(container)
    reason = text(status.get("reason")) or text(terminated.get("reason")) or None
    message = (text(status.get("message")) or _disruption(status)).rstrip(" .")
    answer = text(terminated.get("message"))
    return PodFacts(
        name=text(metadata.get("name")),
        role=text(mapping(metadata.get("labels")).get(labels.ROLE)),
        phase=text(status.get("phase")) or "Pending",
        created=moment(metadata.get("creationTimestamp")),
        started=_started(container),
        deleted=bool(metadata.get("deletionTimestamp")),
        exit_code=integer(terminated.get("exitCode")),
        reason=reason,
        message=message,
        result=_result(answer),
        answer=answer,
        finished_at=moment(terminated.get("finishedAt")),
        disrupted=_disrupted(status, reason, message),
        obstacle=observe_obstacle(pod),
        failed_init=_failed_init(status),
        gpus=_gpus(mapping(pod.get("spec"))),
        raw=pod,
    )


def first_failure(pods: Sequence[PodFacts]) -> PodFacts | None:
    """The pod that is to blame for the end of a gang, the same one in whatever order they are listed.

    By rank, then by time:

    0. a pod that ended with a cause of its own;
    1. a pod that the cluster took away;
    2. a pod that stopped on request or lost a peer, though nobody was deleting it;
    3. a pod that was being deleted and stopped, which is what happens to the siblings of a failed pod.

    Within a rank the first that ended is to blame, and of two that ended in the same second the one that was stopped:
    its peers notice at once, but a clean-up takes a while. The order by time is needed, because a pod that is stopped
    explains lost peers, and lost peers explain, through the clean-up, a pod that is stopped.
    """
    failed = [pod for pod in pods if pod.failed]
    return min(failed, key=lambda pod: (pod.rank, *_order(pod)), default=None)


def _order(pod: PodFacts) -> tuple[float, bool, str]:
    ended = pod.finished_at.timestamp() if pod.finished_at else float("inf")
    return ended, pod.exit_code == ExitCode.PEER_LOST, pod.name


def _own_container(pod: Json) -> Json:
    """The status of the stage's container; others may have been put beside it."""
    containers = mappings(mapping(pod.get("spec")).get("containers"))
    name = containers[0].get("name") if containers else None
    statuses = mappings(mapping(pod.get("status")).get("containerStatuses"))
    return next((status for status in statuses if status.get("name") == name), statuses[0] if statuses else {})


def _terminated(container: Json) -> Json:
    """How the container ended; of one that is restarted, how it ended last."""
    return _ended(container, "state") or _ended(container, "lastState")


def _ended(container: Json, state: str) -> Json:
    return mapping(mapping(container.get(state)).get("terminated"))


def _started(container: Json) -> datetime | None:
    running = mapping(mapping(container.get("state")).get("running"))
    return moment(running.get("startedAt")) or moment(_ended(container, "state").get("startedAt"))


def _disrupted(status: Json, reason: str | None, message: str) -> bool:
    if "DisruptionTarget" in true_conditions(status) or reason == "NodeLost":
        return True
    return reason == "Evicted" and message.startswith(_NODE_PRESSURE)


def _disruption(status: Json) -> str:
    conditions = mappings(status.get("conditions"))
    told = [c for c in conditions if (c.get("type"), c.get("status")) == ("DisruptionTarget", "True")]
    return text(told[0].get("message")) if told else ""


def _failed_init(status: Json) -> str | None:
    for container in mappings(status.get("initContainerStatuses")):
        if integer(_ended(container, "state").get("exitCode")) not in (None, 0):
            return text(container.get("name"))
    return None


def _gpus(spec: Json) -> int:
    """Devices have a domain in their resource's name, such as nvidia.com/gpu; cpu and memory have none."""
    containers = mappings(spec.get("containers"))
    limits = [mapping(mapping(container.get("resources")).get("limits")) for container in containers]
    amounts = [str(amount) for limit in limits for resource, amount in limit.items() if "/" in resource]
    return sum(int(amount) for amount in amounts if amount.isdecimal() and len(amount) < 10)


def _result(answer: str) -> StageResult | None:
    try:
        # A stage of another release may say more than this operator knows; what it knows still counts.
        return StageResult.model_validate_json(answer, extra="ignore") if answer else None
    except ValueError:
        return None
