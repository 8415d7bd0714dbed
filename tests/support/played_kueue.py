"""The kinds of Kueue that the operator reads, without Kueue: a test admits children itself."""

from functools import partial
from typing import Final

from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe.kueue import API_VERSION, LOCAL_QUEUE, WORKLOAD
from support.api import Api
from support.waiting import wait_for

_GROUP, _VERSION = API_VERSION.split("/")
_PLURALS: Final = {WORKLOAD: "workloads", LOCAL_QUEUE: "localqueues"}
_NOON: Final = "2026-01-01T12:00:00Z"


def install(api: Api) -> None:
    """Makes the kinds known; what is in them is nobody's business."""
    for kind, plural in _PLURALS.items():
        definition = _definition(kind, plural)
        api.apply(definition)
        ref = Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", definition["metadata"]["name"])
        wait_for(partial(_is_established, api, ref), f"{kind} to be established")


def local_queue(name: str) -> Json:
    """A LocalQueue."""
    return {
        "apiVersion": API_VERSION,
        "kind": LOCAL_QUEUE,
        "metadata": {"name": name},
        "spec": {"clusterQueue": "all"},
    }


def admit(api: Api, child: Json) -> None:
    """Admits a child: its Workload says so, and it is held back no more."""
    owner = {
        "apiVersion": child["apiVersion"],
        "kind": child["kind"],
        "name": child["metadata"]["name"],
        "uid": child["metadata"]["uid"],
    }
    metadata = {"name": f"{child['kind'].lower()}-{child['metadata']['name']}", "ownerReferences": [owner]}
    queue = child["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    workload = {"apiVersion": API_VERSION, "kind": WORKLOAD, "metadata": metadata, "spec": {"queueName": queue}}
    made = api.create(workload, namespace=child["metadata"]["namespace"])
    told = [_condition(kind) for kind in ("QuotaReserved", "Admitted")]
    api.patch_status(Ref.of(made), {"conditions": told})
    if child["kind"] == "PyTorchJob":
        api.patch(Ref.of(child), {"spec": {"runPolicy": {"suspend": False}}})
    elif child["kind"] == "Job":
        api.patch(Ref.of(child), {"spec": {"suspend": False}})


def _condition(kind: str) -> Json:
    return {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": _NOON}


def _definition(kind: str, plural: str) -> Json:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {
        "name": _VERSION,
        "served": True,
        "storage": True,
        "schema": schema,
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Kinds below *.k8s.io are protected, unless it is said that they are not meant for all.
        "metadata": {
            "name": f"{plural}.{_GROUP}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


def _is_established(api: Api, ref: Ref) -> bool:
    conditions = (api.get(ref).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
