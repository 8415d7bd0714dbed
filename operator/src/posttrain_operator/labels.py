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
RUN_QUEUE: Final = f"{GROUP}/queue"
"""``run.queue`` when the child was made; Kueue's own label may come from a default of Kueue's."""


class Role(StrEnum):
    """What a child does in its attempt."""

    WORKER = "worker"
    """The pods of a FilterJob or UploadJob."""
    TRAINER = "trainer"
    """The training pods of a FineTuneJob or RLJob."""
    SERVERS = "servers"
    """The rollout servers of an RLJob."""


class Reason(StrEnum):
    """Why an object is in its phase: what it means, and what to do (docs/reasons.md)."""

    INVALID_SPEC = "InvalidSpec"
    """The object cannot be worked on as it is; the message names the field.

    Mend ``spec.run`` in place; for the rest, which cannot change, create a corrected object.
    ``posttrain validate`` finds such errors before anything is applied.
    """
    WAITING_FOR_ARTIFACT = "WaitingForArtifact"
    """An object named by ``from`` has not published its artifact yet.

    Look at the object that the message names; this one goes on by itself when that has succeeded.
    """
    INPUT_FAILED = "InputFailed"
    """An object named by ``from`` failed.

    Look why that one failed, delete it and create it again, corrected, under the same name.
    """
    QUEUED = "Queued"
    """The children wait for quota.

    Nothing yet; the condition Admitted has the queue's own words.
    """
    ADMITTED = "Admitted"
    """The queue has admitted all children.

    Nothing; the pods are next.
    """
    QUOTA_MISSING = "QuotaMissing"
    """The queue has not enough unused quota at present.

    Wait, ask for less in ``run.resources``, or name a higher ``run.priorityClass``.
    """
    NEVER_FITS = "NeverFits"
    """The queue, or a ResourceQuota, can never give so much.

    Lower ``run.resources`` (in a queue also suspend and resume), or create the job anew with fewer nodes or servers, or
    have the quota raised.
    """
    QUEUE_INACTIVE = "QueueInactive"
    """The LocalQueue or its ClusterQueue is missing, stopped or wrongly set up.

    Correct ``run.queue``, or have the administrator look at the ClusterQueue.
    """
    DEACTIVATED = "Deactivated"
    """The child's Workload was set to inactive, by a person or by a limit of Kueue.

    Set ``spec.active`` of the child's Workload to true, or create the job anew.
    """
    EVICTED = "Evicted"
    """Kueue has taken the admission back for another reason than a preemption.

    Nothing; it is admitted again. The message has Kueue's reason, if it happens again and again.
    """
    CHECKS_PENDING = "ChecksPending"
    """Quota is kept, but an admission check of the queue has not passed yet.

    Nothing; if it stays, look at the AdmissionChecks of the ClusterQueue.
    """
    WAITING_FOR_TURN = "WaitingForTurn"
    """Another object with two children takes its quota from the same queue first.

    Nothing; its turn comes when those before it have their quota.
    """
    QUOTA_RELEASED = "QuotaReleased"
    """The attempt held a part of its quota for too long without the rest, and let it go for others.

    Nothing; it is at the end of the line. If it happens again and again, give the queue room for both halves.
    """
    QUEUE_CHANGED = "QueueChanged"
    """``run.queue`` or ``run.priorityClass`` was changed while the children waited; they are made again.

    Nothing.
    """
    QUEUE_NOT_MANAGED = "QueueNotManaged"
    """No queue takes care of a child: Kueue is missing, or does not manage its kind.

    Install Kueue, enable ``kubeflow.org/pytorchjob``, ``statefulset`` and ``pod`` in it, or remove ``run.queue``.
    """
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota of the namespace has no room for all pods of the attempt.

    Wait for jobs that hold the quota, lower ``run.resources``, or have the quota raised.
    """
    STARTING = "Starting"
    """Pods are being created or are loading.

    Nothing; if it lasts, look at the events of the pods. ``run.pendingDeadline`` ends a wait that is too long.
    """
    UNSCHEDULABLE = "Unschedulable"
    """No node has room for a pod, or suits it; the message is the scheduler's.

    Lower ``run.resources``, or correct ``run.nodeSelector`` and ``run.tolerations``, then suspend and resume it; or
    add a node.
    """
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """A node cannot get the image of a pod.

    Correct ``run.image`` and ``run.imagePullSecrets``, then suspend and resume it; or push the image.
    """
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    """A Secret or ConfigMap that a pod needs, or a key in it, is missing.

    Create what the message names in this namespace; the pod then starts by itself.
    """
    CONTAINER_CANNOT_RUN = "ContainerCannotRun"
    """The node cannot start a pod's container.

    Take an image of this project, or one that has Python and the stage's program, in ``run.image``.
    """
    POD_CREATION_FAILED = "PodCreationFailed"
    """A controller cannot create its pods; the message is its own.

    Do what the message says: mostly a quota, a LimitRange or an admission policy refuses the pods.
    """
    RUNNING = "Running"
    """The attempt is at work.

    Nothing.
    """
    RETRYING = "Retrying"
    """The last attempt ended before it was finished; the next one starts soon.

    Nothing; the last entry of ``status.attempts`` tells how that attempt ended.
    """
    STOPPING = "Stopping"
    """Pods of the last attempt are still ending.

    Nothing; if it stays, look at the pods' node, which may be gone.
    """
    SUSPENDED = "Suspended"
    """``run.suspend`` is set.

    Set ``run.suspend`` to false to go on.
    """
    SUCCEEDED = "Succeeded"
    """The artifact is published and verified.

    Nothing.
    """
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """All attempts together took longer than ``run.deadline``.

    Create it anew with a longer ``run.deadline`` or less to do.
    """
    PENDING_DEADLINE_EXCEEDED = "PendingDeadlineExceeded"
    """No attempt ran within ``run.pendingDeadline``.

    Mend what the message names at its end, and create the job anew.
    """
    NAME_TAKEN = "NameTaken"
    """A child's name belongs to an object of somebody else.

    Delete or rename the object that the message names, or create the job under another name.
    """
    REFUSED = "Refused"
    """The cluster does not accept a child; the message says why.

    Do what the message says: mostly a quota, an admission policy or a missing right of the operator.
    """
    KIND_MISSING = "KindMissing"
    """The cluster does not know the kind of a child; its controller is not installed.

    Install the controller that the message names; that is noticed within a minute.
    """
    INTERNAL_ERROR = "InternalError"
    """The operator met an error that nobody expected; it tries again, and its log says more.

    Report it with the operator's log, which has the trace.
    """
    PREEMPTED = "Preempted"
    """The cluster stopped the pods; another attempt goes on from the checkpoint and costs no retry.

    Nothing.
    """
    CHILD_LOST = "ChildLost"
    """The attempt's children are gone without a result; another attempt goes on from its checkpoint.

    Nothing; if it happens again, find out who deletes the children.
    """
    POD_REPLACED = "PodReplaced"
    """A pod of a gang was deleted or made anew alone; another attempt starts the gang whole, at no cost.

    Nothing.
    """
    GANG_INCOMPLETE = "GangIncomplete"
    """Pods of a gang gave up before all of them had started; another attempt follows, at no cost.

    Nothing; if it happens again, look why some pods start so much later, such as large images.
    """
    SCRATCH_EXCEEDED = "ScratchExceeded"
    """A pod was evicted because it used more scratch space than it may.

    Write less below ``/tmp``, which has 8 GiB (with the log 10 GiB); large files belong on the claim.
    """
    NO_RESULT = "NoResult"
    """The pods ended without telling a result.

    Look at the log of the pod that the message names. Pods of failed attempts stay until
    ``run.ttlAfterFinished`` is over.
    """
    OUT_OF_MEMORY = "OutOfMemory"
    """A container was killed at its memory limit.

    Raise ``run.resources.memory`` (``shm`` where the message says so), or lower what the message names.
    """
