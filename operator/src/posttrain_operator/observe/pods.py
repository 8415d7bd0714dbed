"""Pods: what they answered, and which one failed first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from pydantic import ValidationError

from posttrain_operator import labels
from posttrain_operator.cluster import Json
from posttrain_operator.observe.workload import true_conditions


@dataclass(frozen=True)
class PodFacts:
    """One pod of an attempt."""

    name: str
    role: str
    phase: str
    exit_code: int | None
    """Exit status of its container, once that ended; of a restarted one, of its last run."""
    reason: str | None
    """The kubelet's word for the end, such as OOMKilled or Evicted."""
    message: str
    """The kubelet's sentence for the end of the whole pod, such as why it was evicted."""
    result: StageResult | None
    """What the stage answered."""
    finished_at: datetime | None
    disrupted: bool
    """Whether the cluster took it away: preemption, eviction, a drained or lost node."""
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


def observe_pod(pod: Json) -> PodFacts:
    """The facts of a pod."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or [{}]
    terminated = _terminated(containers[0])
    return PodFacts(
        name=pod["metadata"]["name"],
        role=pod["metadata"].get("labels", {}).get(labels.ROLE, ""),
        phase=status.get("phase", "Pending"),
        exit_code=terminated.get("exitCode"),
        reason=terminated.get("reason") or status.get("reason"),
        message=status.get("message") or "",
        result=_result(terminated.get("message")),
        finished_at=_time(terminated.get("finishedAt")),
        disrupted="DisruptionTarget" in true_conditions(status),
        raw=pod,
    )


def first_failure(pods: Sequence[PodFacts]) -> PodFacts | None:
    """The pod that is to blame: the first that failed, because its siblings died of it.

    A pod that only lost its peer, or was stopped, is blamed when there is no other; before it comes one that the
    cluster took away.
    """
    failed = [pod for pod in pods if pod.failed]
    return min(failed, key=lambda pod: (_rank(pod), _order(pod)), default=None)


def _terminated(container: dict[str, Any]) -> dict[str, Any]:
    """How the container ended; of one that is restarted, how it ended last."""
    now, last = container.get("state") or {}, container.get("lastState") or {}
    ended: dict[str, Any] = now.get("terminated") or last.get("terminated") or {}
    return ended


def _rank(pod: PodFacts) -> int:
    if pod.disrupted:
        return 1
    return 2 if pod.exit_code == ExitCode.PEER_LOST or ExitCode.is_preemption(pod.exit_code) else 0


def _order(pod: PodFacts) -> tuple[float, str]:
    return (pod.finished_at.timestamp() if pod.finished_at else float("inf"), pod.name)


def _result(message: object) -> StageResult | None:
    if not isinstance(message, str):
        return None
    try:
        # A stage of another release may say more than this operator knows; what it knows still counts.
        return StageResult.model_validate_json(message, extra="ignore")
    except ValidationError:
        return None


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
