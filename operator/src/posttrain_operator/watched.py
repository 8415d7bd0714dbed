"""The kinds of the cluster that the operator knows: how each is addressed, and which are watched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Json
from posttrain_operator.observe import kueue, quota
from posttrain_operator.observe.raw import mapping, mappings

OURS: Final = f"app.kubernetes.io/managed-by={labels.MANAGER}"
"""Selects the children and their pods."""


@dataclass(frozen=True)
class Api:
    """How objects of one kind are found."""

    api_version: str
    kind: str
    plural: str
    selector: str | None = None
    """Labels of those that matter; None: all."""
    watched: bool = True
    """Whether its events are followed; what only the operator itself makes and deletes needs none."""
    optional: bool = False
    """Whether a cluster may do without it."""

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version without its group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of one object, of the collection of a namespace, or of all."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}{f'/{name}' if name else ''}"


RESOURCES: Final = tuple(Api(labels.API_VERSION, kind.name, kind.plural) for kind in KINDS.values())
CHILDREN: Final = (
    Api("kubeflow.org/v1", "PyTorchJob", "pytorchjobs", OURS, optional=True),
    Api("batch/v1", "Job", "jobs", OURS),
    Api("apps/v1", "StatefulSet", "statefulsets", OURS),
    Api("v1", "Service", "services", OURS, watched=False),
    Api("v1", "ConfigMap", "configmaps", OURS, watched=False),
    Api("v1", "Pod", "pods", OURS),
)
QUEUEING: Final = (
    Api(kueue.API_VERSION, kueue.WORKLOAD, "workloads", optional=True),
    Api(kueue.API_VERSION, kueue.LOCAL_QUEUE, "localqueues", optional=True),
    Api(quota.API_VERSION, quota.KIND, "resourcequotas"),
)
CACHED: Final = (*RESOURCES, *CHILDREN, *QUEUEING)
"""Every kind that is read from the cache."""
EVENTS: Final = Api("v1", "Event", "events", watched=False)
LEASES: Final = Api("coordination.k8s.io/v1", "Lease", "leases", watched=False)

APIS: Final[Mapping[tuple[str, str], Api]] = {(api.api_version, api.kind): api for api in (*CACHED, EVENTS, LEASES)}

_READ: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": ("containers",),
    "PyTorchJob": ("runPolicy", "pytorchReplicaSpecs"),
    "Job": ("suspend", "completions", "parallelism"),
    "StatefulSet": ("replicas",),
    "Workload": ("queueName", "priority", "active"),
}
"""What is read of the specification of others' objects."""


def slim(obj: Json) -> Json:
    """An object without what no plan reads: the cache holds thousands. Shares its parts with ``obj``."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("managedFields", "annotations")}
    kept: Json = {**obj, "metadata": metadata}
    if obj["kind"] == "ConfigMap":
        return {key: value for key, value in kept.items() if key not in ("data", "binaryData")}
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return kept
    if obj["kind"] in _READ:
        kept["spec"] = {key: spec[key] for key in _READ[obj["kind"]] if key in spec}
    if obj["kind"] == "Pod":
        kept["spec"]["containers"] = [_only(c, "name", "resources") for c in mappings(spec.get("containers"))]
    if obj["kind"] == "PyTorchJob":
        replicas = mapping(spec.get("pytorchReplicaSpecs"))
        kept["spec"]["pytorchReplicaSpecs"] = {role: _only(mapping(of), "replicas") for role, of in replicas.items()}
    if obj["kind"] == "Workload":
        kept["status"] = {"conditions": (obj.get("status") or {}).get("conditions") or []}
    return kept


def _only(part: Json, *keys: str) -> Json:
    return {key: part[key] for key in keys if key in part}
