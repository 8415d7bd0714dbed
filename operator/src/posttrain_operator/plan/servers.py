"""Builds the rollout servers: a StatefulSet and the headless Service that names its pods."""

from posttrain_contract import layout

from posttrain_operator import labels
from posttrain_operator.cluster import Json
from posttrain_operator.observe.statefulset import API_VERSION, KIND
from posttrain_operator.plan.metadata import Child


def headless_service(child: Child) -> Json:
    """Gives every server pod a name; a pod is reachable before it is ready, because the trainer waits for it itself."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child.metadata(),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _selector(child),
            "ports": [{"name": "http", "port": layout.SERVER_PORT}],
        },
    }


def stateful_set(child: Child, template: Json, *, replicas: int) -> Json:
    """The servers; all start at once."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": child.queued_metadata(),
        "spec": {
            "serviceName": child.name,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": _selector(child)},
            "template": template,
        },
    }


def pod_names(child: Child, replicas: int) -> list[str]:
    """The names that a StatefulSet gives its pods."""
    return [f"{child.name}-{index}" for index in range(replicas)]


def _selector(child: Child) -> dict[str, str]:
    keys = (labels.KIND, labels.NAME, labels.ATTEMPT, labels.ROLE)
    return {key: child.labels[key] for key in keys}
