"""Why a pod has not started, in words: what only its status, the scheduler or the kubelet knows."""

from dataclasses import dataclass
from typing import Final

from posttrain_operator.cluster import Json
from posttrain_operator.labels import Reason
from posttrain_operator.observe.raw import mapping, mappings, text

_PULL: Final = (
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
_CANNOT_RUN: Final = ("RunContainerError", "CreateContainerError", "ContainerCannotRun", "StartError")
_GRAVEST_FIRST: Final = (
    Reason.CONTAINER_CONFIG_ERROR,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_CANNOT_RUN,
    Reason.UNSCHEDULABLE,
)
"""What only a person can mend comes before what may pass."""


@dataclass(frozen=True)
class Obstacle:
    """What keeps a pod from starting."""

    reason: Reason
    message: str

    @property
    def rank(self) -> int:
        """0 for the gravest."""
        return _GRAVEST_FIRST.index(self.reason)


def observe_obstacle(pod: Json) -> Obstacle | None:
    """What keeps a pod from starting, or None where nothing is known."""
    name, status = text(mapping(pod.get("metadata")).get("name")), mapping(pod.get("status"))
    for container in (*mappings(status.get("initContainerStatuses")), *mappings(status.get("containerStatuses"))):
        waiting = mapping(mapping(container.get("state")).get("waiting"))
        obstacle = _waiting(name, text(container.get("image")), waiting)
        if obstacle is not None:
            return obstacle
    return _unscheduled(name, status)


def cannot_run(reason: str | None) -> bool:
    """Whether a container ended with a reason that means that it never ran."""
    return reason in _CANNOT_RUN


def _waiting(pod: str, image: str, waiting: Json) -> Obstacle | None:
    reason, told = text(waiting.get("reason")), text(waiting.get("message")) or "no reason given"
    if reason in _PULL:
        message = f"image {image} of {pod} cannot be pulled: {told}; check run.image and run.imagePullSecrets"
        return Obstacle(Reason.IMAGE_PULL_FAILED, message)
    if reason == "CreateContainerConfigError":
        message = f"{pod} needs what is not there: {told}; create it in this namespace"
        return Obstacle(Reason.CONTAINER_CONFIG_ERROR, message)
    if reason in _CANNOT_RUN:
        return Obstacle(Reason.CONTAINER_CANNOT_RUN, f"{pod} cannot be started: {told}")
    return None


def _unscheduled(pod: str, status: Json) -> Obstacle | None:
    for condition in mappings(status.get("conditions")):
        told = condition.get("type"), condition.get("status"), condition.get("reason")
        if told == ("PodScheduled", "False", "Unschedulable"):
            message = text(condition.get("message")) or "no reason given"
            return Obstacle(Reason.UNSCHEDULABLE, f"{pod} cannot be scheduled: {message}")
    return None
