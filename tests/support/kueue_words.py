"""What Kueue 0.19 writes: Workloads and their conditions, and what it does to the children that they admit."""

from datetime import datetime
from typing import Any

from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe import kueue
from support.memory_cluster import owner_reference
from support.scene import Scene

UNUSED = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default, "
    "4 more needed"
)
TOO_MUCH = (
    "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor default, previously "
    "considered podsets requests (0) + current podset request (64) > maximum capacity (16)"
)
PREEMPTION = (
    "Preempted to accommodate a workload (UID: {uid}, JobUID: {job}) due to prioritization in the ClusterQueue; "
    "preemptor path: /gpus; preemptee path: /gpus"
)


def child(scene: Scene, kind: str) -> Ref:
    """The one child of a kind."""
    (ref,) = scene.cluster.of_kind(kind)
    return ref


def ask(scene: Scene, kind: str = "PyTorchJob", *, at: datetime | None = None, **spec: Any) -> Ref:
    """Kueue has noticed a child: there is a Workload for it."""
    made_for = scene.cluster.objects[child(scene, kind)]
    labels = made_for["metadata"].get("labels", {})
    return workload(
        scene,
        f"{kind.lower()}-{made_for['metadata']['name']}",
        at=at,
        owner={**owner_reference(made_for), "controller": kind != "StatefulSet"},
        **{"queueName": labels.get("kueue.x-k8s.io/queue-name", ""), **spec},
    )


def workload(scene: Scene, name: str, *, at: datetime | None = None, owner: Json | None = None, **spec: Any) -> Ref:
    """A Workload of the namespace."""
    metadata: Json = {"name": name, "namespace": scene.ref.namespace, "creationTimestamp": stamp(at or scene.now)}
    if owner is not None:
        metadata |= {"ownerReferences": [owner], "labels": {kueue.JOB_UID: owner["uid"]}}
    body = {"queueName": "team-a", "active": True, **spec}
    return scene.cluster.apply(
        {"apiVersion": kueue.API_VERSION, "kind": "Workload", "metadata": metadata, "spec": body}
    )


def tell(scene: Scene, ref: Ref, **told: tuple[str, str, str]) -> None:
    """Sets conditions of a Workload: (status, reason, message) by type."""
    before = {c["type"]: c for c in scene.cluster.objects[ref].get("status", {}).get("conditions", [])}
    for kind, (status, reason, message) in told.items():
        since = before[kind]["lastTransitionTime"] if before.get(kind, {}).get("status") == status else stamp(scene.now)
        condition = {"status": status, "reason": reason, "message": message, "lastTransitionTime": since}
        before[kind] = {"type": kind, **condition}
    scene.cluster.set_status(ref, conditions=list(before.values()))


def waits(scene: Scene, ref: Ref, message: str = UNUSED, reason: str = "Pending") -> None:
    """Kueue finds no quota for a Workload."""
    tell(scene, ref, QuotaReserved=("False", reason, message))


def admit(scene: Scene, ref: Ref) -> None:
    """Kueue admits a Workload and lets its child go."""
    reserved = ("True", "QuotaReserved", "Quota reserved in ClusterQueue gpus")
    over = dict.fromkeys(("Evicted", "Preempted"), ("False", "QuotaReserved", "Previously: Preempted"))
    tell(scene, ref, QuotaReserved=reserved, Admitted=("True", "Admitted", "The workload is admitted"), **over)
    suspend(scene, ref, held=False)


def evict(scene: Scene, ref: Ref, reason: str = "Preempted", message: str = "") -> None:
    """Kueue takes the admission of a Workload back; the quota is kept until the child has stopped."""
    said = message or PREEMPTION.format(uid="someone", job="somewhere")
    tell(scene, ref, Evicted=("True", reason, said))
    if reason == "Preempted":
        tell(scene, ref, Preempted=("True", "InClusterQueue", said))


def stop(scene: Scene, ref: Ref) -> None:
    """The child of an evicted Workload is suspended, its pods are told to end, and its quota is given to others."""
    suspend(scene, ref, held=True)
    owner = scene.cluster.objects[ref]["metadata"]["ownerReferences"][0]
    made_for = Ref(owner["apiVersion"], owner["kind"], ref.namespace, owner["name"])
    for pod in scene.cluster.owned_by(scene.cluster.objects[made_for]):
        if pod.kind == "Pod":
            scene.cluster.objects[pod]["metadata"]["deletionTimestamp"] = stamp(scene.now)
    told = {c["type"]: c for c in scene.cluster.objects[ref]["status"]["conditions"]}["Evicted"]["message"]
    lacking = ("False", "NoReservation", "The workload has no reservation")
    tell(scene, ref, QuotaReserved=("False", "Pending", told), Admitted=lacking)


def suspend(scene: Scene, ref: Ref, *, held: bool) -> None:
    owner = scene.cluster.objects[ref]["metadata"]["ownerReferences"][0]
    made_for = scene.cluster.objects[Ref(owner["apiVersion"], owner["kind"], ref.namespace, owner["name"])]
    if made_for["kind"] == "PyTorchJob":
        made_for["spec"]["runPolicy"]["suspend"] = held
        condition = {"type": "Suspended", "status": "True"}
        made_for["status"] = {"conditions": [condition] if held else []}
    elif made_for["kind"] == "Job":
        made_for["spec"]["suspend"] = held


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
