"""StatefulSet (apps/v1)."""

from posttrain_operator.cluster import Json
from posttrain_operator.observe.raw import integer, mapping

API_VERSION = "apps/v1"
KIND = "StatefulSet"


def ready(child: Json) -> bool:
    """Whether every replica answers its readiness probe; of one that was scaled to nothing none does."""
    wanted = integer(mapping(child.get("spec")).get("replicas")) or 0
    answering = integer(mapping(child.get("status")).get("readyReplicas")) or 0
    return 0 < wanted <= answering
