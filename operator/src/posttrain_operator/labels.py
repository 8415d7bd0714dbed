"""Every label and every reason, each with a sentence."""

from enum import StrEnum
from typing import Final

GROUP: Final = "posttrain.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
MANAGER: Final = "posttrain-operator"
"""Value of app.kubernetes.io/managed-by and name of the field manager."""

KIND: Final = f"{GROUP}/kind"
"""Kind of the object that a child belongs to."""
NAME: Final = f"{GROUP}/name"
"""Name of the object that a child belongs to."""
ATTEMPT: Final = f"{GROUP}/attempt"
"""Number of the attempt that a child belongs to."""
ROLE: Final = "app.kubernetes.io/component"
"""What a child does in its attempt, see ``Role``."""

QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Kueue's label for the LocalQueue."""
PRIORITY: Final = "kueue.x-k8s.io/priority-class"
"""Kueue's label for the WorkloadPriorityClass."""


class Role(StrEnum):
    """What a child does in its attempt."""

    WORKER = "worker"
    """The pods of a FilterJob or UploadJob."""
    TRAINER = "trainer"
    """The training pods of a FineTuneJob or RLJob."""
    SERVERS = "servers"
    """The rollout servers of an RLJob."""


class Reason(StrEnum):
    """Why an object is in its phase."""

    INVALID_SPEC = "InvalidSpec"
    """The object cannot be worked on as it is; the message names the field."""
    WAITING_FOR_ARTIFACT = "WaitingForArtifact"
    """An object named by ``from`` has not published its artifact yet."""
    INPUT_FAILED = "InputFailed"
    """An object named by ``from`` failed; replace it to go on."""
    QUEUED = "Queued"
    """The children wait for quota."""
    STARTING = "Starting"
    """Pods are being created or are loading."""
    RUNNING = "Running"
    """The attempt is at work."""
    RETRYING = "Retrying"
    """The last attempt ended before it was finished; the next one starts soon."""
    STOPPING = "Stopping"
    """Pods of the last attempt are still ending."""
    SUSPENDED = "Suspended"
    """``run.suspend`` is set."""
    SUCCEEDED = "Succeeded"
    """The artifact is published and verified."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """All attempts together took longer than ``run.deadline``."""
    NAME_TAKEN = "NameTaken"
    """A child's name belongs to an object of somebody else."""
    PREEMPTED = "Preempted"
    """The cluster stopped the pods; another attempt goes on from the checkpoint and costs no retry."""
    CHILD_LOST = "ChildLost"
    """The attempt's children are gone without a result; another attempt goes on from its checkpoint."""
    NO_RESULT = "NoResult"
    """The pods ended without telling a result."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A container was killed at its memory limit."""
