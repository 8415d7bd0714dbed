"""``spec.run``: where and how a job runs; the same in all four kinds, and the only part that may change later."""

import re
from typing import Annotated, ClassVar, Final, Literal

from posttrain_contract.base import Model, Rule
from pydantic import Field

from posttrain_operator.api.quantities import Duration, Quantity
from posttrain_operator.labels import GROUP

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
LabelKey = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317),
]
AnnotationValue = Annotated[str, Field(max_length=4096)]
LabelName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
"""The name of an object that children carry as a label's value."""

OWN_PREFIX: Final = f"{GROUP}/"
RESERVED_LABELS: Final = (OWN_PREFIX, "app.kubernetes.io/", "kueue.x-k8s.io/", "training.kubeflow.org/")
"""Prefixes of labels by which the operator, queues and controllers find pods."""


class Storage(Model):
    """Where the run folder lies."""

    claim: Name = Field(
        default="posttrain",
        description="PersistentVolumeClaim of the namespace; ReadWriteMany when pods run on several nodes.",
    )


class Resources(Model):
    """What one pod gets; a job with several pods gets it several times.

    Requests and limits of what is named here are equal.
    """

    gpus: int = Field(default=0, ge=0, le=64, description="GPUs; 0 runs on CPU.")
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        max_length=317,
        description="Name of the GPU resource of the nodes.",
    )
    cpu: Quantity = Field(default="1", description="CPU cores, such as '8' (in quotes) or 500m.")
    memory: Quantity = Field(default="4Gi", description="Memory, such as 64Gi.")
    shm: Quantity = Field(default="1Gi", description="Shared memory at /dev/shm, such as 8Gi; it counts as memory.")


class Toleration(Model):
    """A Kubernetes toleration."""

    key: LabelKey | None = Field(default=None, description="Taint key; absent: all, with Exists.")
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Equal: the taint has this value; Exists: any value will do."
    )
    value: LabelValue | None = Field(default=None, description="Taint value, with Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent: all."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            check=lambda self: self.key is not None or self.operator == "Exists",
            message="without key, set operator: Exists, which tolerates every taint",
        ),
        Rule(
            cel="!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
            check=lambda self: self.value is None or self.operator != "Exists",
            message="with operator Exists, leave value out",
        ),
    )


_SENSITIVE: Final = r"(?i)(token|secret|password|passwd|api_?key|access_?key)$"


class EnvVar(Model):
    """An environment variable for libraries, such as NCCL settings; secrets go into run.secrets."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128, description="Name.")
    value: str = Field(max_length=4096, description="Value.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!self.name.matches('{_SENSITIVE}')",
            check=lambda self: re.search(_SENSITIVE, self.name) is None,
            message="run.env is no place for secrets, which everybody can read there; put them into run.secrets",
        ),
    )


class Secrets(Model):
    """Names of Secrets in the namespace; only the kubelet reads them."""

    hugging_face: Name | None = Field(
        default=None,
        description="Secret whose key `token` is the Hub token; given to the pods of an UploadJob and of jobs with an "
        "hf:// input, which forget it once that is fetched.",
    )
    wandb: Name | None = Field(
        default=None,
        description="Secret whose key `apiKey` is the W&B API key; given to training pods whose tracking.wandb.mode is "
        "online; absent: they write offline.",
    )


_ANY_VERSION: Final = "(^|/)[^/:@]+(:latest)?"
"""Images of which nobody can say what they are tomorrow; the attempts and the pods of a job shall run the same."""


class RunSpec(Model):
    """Where and how a job runs; the only part of the spec that may change later."""

    queue: LabelName | None = Field(default=None, description="Kueue LocalQueue of the namespace; absent: no queue.")
    priority_class: LabelName | None = Field(default=None, description="Kueue WorkloadPriorityClass.")
    suspend: bool = Field(default=False, description="Stop after a checkpoint and stay stopped; false goes on.")
    retries: int = Field(
        default=3, ge=0, le=100, description="Failed attempts that are tried again; preemptions are not counted."
    )
    deadline: Duration | None = Field(
        default=None,
        description="Longest time over all attempts, such as 48h or 1h30m, less time suspended; absent: none.",
    )
    pending_deadline: Duration | None = Field(
        default=None,
        description="Longest time from the first attempt's children until all pods of an attempt ran, such as 2h; "
        "less time suspended; absent: none.",
    )
    ttl_after_finished: Duration | None = Field(
        default=None,
        description="Time after the end of the job when its children go, with their pods and logs, such as 24h; "
        "this object and its artifact stay; absent: children stay.",
    )
    storage: Storage = Field(default=Storage(), description="Where the run folder lies.")
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Image of the stage, with a version or a digest; absent: the operator's.",
    )
    resources: Resources = Field(default=Resources(), description="What one pod gets.")
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, max_length=32, description="Labels a node must have.")
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32, description="Taints that are tolerated.")
    env: tuple[EnvVar, ...] = Field(default=(), max_length=128, description="Environment variables for libraries.")
    service_account_name: Name | None = Field(default=None, description="Service account of the pods.")
    image_pull_secrets: tuple[Name, ...] = Field(
        default=(), max_length=16, description="Secrets with the registry's login."
    )
    pod_labels: dict[LabelKey, LabelValue] = Field(
        default={},
        max_length=32,
        description="More labels of the pods; those of the operator have prefixes of their own.",
    )
    pod_annotations: dict[LabelKey, AnnotationValue] = Field(
        default={}, max_length=32, description="Annotations of the pods, such as those of Kueue's topologies."
    )
    secrets: Secrets = Field(default=Secrets(), description="Secrets that stages need.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.podLabels) || self.podLabels.all(key, "
            + " && ".join(f"!key.startsWith('{prefix}')" for prefix in RESERVED_LABELS)
            + ")",
            check=lambda self: not any(key.startswith(RESERVED_LABELS) for key in self.pod_labels),
            message=f"podLabels must not begin with {', '.join(RESERVED_LABELS)}: pods are found by these",
        ),
        Rule(
            cel=f"!has(self.podAnnotations) || self.podAnnotations.all(key, !key.startsWith('{OWN_PREFIX}'))",
            check=lambda self: not any(key.startswith(OWN_PREFIX) for key in self.pod_annotations),
            message=f"podAnnotations must not begin with {OWN_PREFIX}: those are the operator's",
        ),
        Rule(
            cel=f"!has(self.image) || !self.image.matches('{_ANY_VERSION}$')",
            check=lambda self: self.image is None or re.search(rf"{_ANY_VERSION}\Z", self.image) is None,
            message="image needs a digest, or a version other than latest: every pod and attempt must run the same",
        ),
    )
