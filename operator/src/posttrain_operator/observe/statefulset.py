"""StatefulSet (apps/v1)."""

from posttrain_operator.cluster import Json

API_VERSION = "apps/v1"
KIND = "StatefulSet"


def ready(child: Json) -> bool:
    """Whether every replica answers its readiness probe."""
    return bool(child.get("status", {}).get("readyReplicas", 0) >= child["spec"]["replicas"])
