"""Children that lost their owner: the garbage collector takes them for nobody's, so they would compute for ever."""

from collections.abc import Iterator
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Cluster, Json, Ref
from posttrain_operator.observe.facts import CHILD_KINDS
from posttrain_operator.observe.raw import mapping, text

_OURS: Final = {"app.kubernetes.io/managed-by": labels.MANAGER}


async def collect(cluster: Cluster) -> None:
    """Deletes children of ours that nobody owns and that no job needs. The API server is asked about each job again."""
    for version, kind in CHILD_KINDS:
        for child, job in _unowned(await cluster.list_objects(version, kind, "", _OURS)):
            seen = await cluster.get(job)
            if not _needs(seen, child) and not _needs(await cluster.read(job), child):
                await cluster.delete(Ref.of(child), uid=child["metadata"]["uid"])


def _unowned(children: list[Json]) -> Iterator[tuple[Json, Ref]]:
    """The children without an owner, and the job that each names by its labels."""
    for child in children:
        metadata = child["metadata"]
        own = mapping(metadata.get("labels"))
        kind, name = text(own.get(labels.KIND)), text(own.get(labels.NAME))
        if kind and name and not metadata.get("ownerReferences") and not metadata.get("deletionTimestamp"):
            yield child, Ref(labels.API_VERSION, kind, metadata["namespace"], name)


def _needs(job: Json | None, child: Json) -> bool:
    """Whether a job may still take a child for its own: the attempt of that number is under way."""
    status = read_status(job.get("status") if job is not None else None)
    attempt = status.open_attempt if status.phase != "Suspended" else None
    return attempt is not None and text(child["metadata"]["labels"].get(labels.ATTEMPT)) == str(attempt.number)
