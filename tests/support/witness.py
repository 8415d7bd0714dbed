"""What really happened in a namespace, seen at the API server itself: every birth, every death, every status."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from posttrain_operator import labels
from posttrain_operator.api.status import Status, read_status
from support.api_client import ApiClient, Json, Server
from support.loop_thread import LoopThread

RESOURCES: Final = ("filterjobs", "finetunejobs", "rljobs", "uploadjobs")
_PATHS: Final = (
    *(f"/apis/{labels.API_VERSION}/namespaces/{{}}/{plural}" for plural in RESOURCES),
    "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs",
    "/apis/batch/v1/namespaces/{}/jobs",
    "/apis/apps/v1/namespaces/{}/statefulsets",
    "/api/v1/namespaces/{}/services",
    "/api/v1/namespaces/{}/configmaps",
    "/api/v1/namespaces/{}/pods",
)
_WORKLOADS: Final = ("PyTorchJob", "Job", "StatefulSet")
_PASSING: Final = re.compile(r"Time$|^(updatedAt|gpuSeconds|gpus)$")
"""Fields of a status that tell of moments, or of what was seen between them."""
_EIGHT: Final = re.compile(r"(?=([0-9a-f]{8}))")
"""Every place where the beginning of a uid may be."""


class Witness:
    """Follows the objects of one namespace that are ours."""

    def __init__(self) -> None:
        self.births: list[Json] = []
        """Every object, as it was first seen."""
        self.deaths: list[Json] = []
        """Every object that is gone, as it was last seen."""
        self.present: dict[str, Json] = {}
        """What there is, by uid."""
        self.statuses: defaultdict[str, list[Status]] = defaultdict(list)
        """The statuses of each job, by uid, in order."""
        self.tasks: list[asyncio.Task[None]] = []

    def see(self, event: str, obj: Json) -> None:
        uid = obj["metadata"]["uid"]
        if obj["apiVersion"] != labels.API_VERSION and not _labels(obj).get(labels.NAME):
            return
        if event == "DELETED":
            self.deaths.append(self.present.pop(uid, obj))
            return
        if uid not in self.present:
            self.births.append(obj)
        self.present[uid] = obj
        if obj["apiVersion"] == labels.API_VERSION:
            status = read_status(obj.get("status"))
            if not self.statuses[uid] or self.statuses[uid][-1] != status:
                self.statuses[uid].append(status)

    def jobs(self) -> list[Json]:
        """The objects of the four kinds."""
        return [obj for obj in [*self.present.values()] if obj["apiVersion"] == labels.API_VERSION]

    def finished(self, number: int) -> bool:
        """Whether so many jobs have ended."""
        return sum(read_status(job.get("status")).finished for job in self.jobs()) >= number

    def outcomes(self) -> Counter[str]:
        """How many jobs are in which phase."""
        return Counter(str(read_status(job.get("status")).phase) for job in self.jobs())

    def made(self) -> Counter[str]:
        """How often each child was made, pods included."""
        return Counter(
            f"{birth['kind']} of {own[labels.KIND]}/{own[labels.NAME]}: {own[labels.ROLE]} {own[labels.ATTEMPT]}"
            for birth in [*self.births]
            if (own := _labels(birth))
        )

    def doubles(self) -> list[str]:
        """Attempts that were given a child of one kind and role twice."""
        made = Counter(
            f"{_owner(birth)} attempt {own[labels.ATTEMPT]}: {birth['kind']} {own[labels.ROLE]}"
            for birth in [*self.births]
            if birth["kind"] in _WORKLOADS and (own := _labels(birth))
        )
        return sorted(child for child, times in made.items() if times > 1)

    def lingering(self) -> list[str]:
        """Servers of jobs that have ended."""
        ended = {job["metadata"]["uid"] for job in self.jobs() if read_status(job.get("status")).finished}
        left = [obj for obj in [*self.present.values()] if obj["kind"] in ("StatefulSet", "Service")]
        return [obj["metadata"]["name"] for obj in left if _owner(obj) in ended]

    def orphans(self) -> list[str]:
        """Children whose owner is gone."""
        return sorted(
            f"{obj['kind']}/{obj['metadata']['name']}"
            for obj in [*self.present.values()]
            if obj["apiVersion"] != labels.API_VERSION and _owner(obj) not in self.present
        )

    def regressions(self) -> list[str]:
        """Jobs whose end was taken back."""
        found = []
        for uid, statuses in [*self.statuses.items()]:
            ended = [status.finished for status in statuses]
            if ended != sorted(ended):
                found.append(f"{uid}: {[status.phase for status in statuses]}")
        return found

    def normal_form(self) -> Json:
        """The jobs and their children, but for what differs from run to run: equal after equal runs.

        Pods are left out: how many of a gang still run when its leader is done is chance.
        """
        objects = [obj for obj in [*self.present.values()] if obj["kind"] != "Pod"]
        names = _Names(objects)
        return {name: form for obj in objects for name, form in [names.form(obj)]}


class _Names:
    """What uids and contents are called in every run."""

    def __init__(self, objects: list[Json]) -> None:
        named = {obj["metadata"]["uid"]: f"<{obj['kind']}/{obj['metadata']['name']}>" for obj in objects}
        self._uids = {uid[:8]: (uid, name) for uid, name in named.items()}
        self._maps: dict[str, str] = {}
        for obj in objects:
            if obj["kind"] == "ConfigMap":
                name = obj["metadata"]["name"]
                prefix = name.rpartition("-")[0]
                role, attempt = (_labels(obj)[key] for key in (labels.ROLE, labels.ATTEMPT))
                self._maps[name] = f"{prefix}-<{role} {attempt}>"

    def form(self, obj: Json) -> tuple[str, Json]:
        metadata = obj["metadata"]
        content = {key: value for key, value in obj.items() if key in ("spec", "data", "immutable")}
        if obj["apiVersion"] == labels.API_VERSION:
            content["status"] = _lasting(obj.get("status"))
        content["labels"] = _labels(obj)
        content["owners"] = [f"{owner['kind']}/{owner['name']}" for owner in metadata.get("ownerReferences", [])]
        named: Json = self._renamed(content, metadata["namespace"])
        name = self._maps.get(metadata["name"], metadata["name"])
        return f"{obj['kind']}/{name}", named

    def _renamed(self, value: Any, namespace: str) -> Any:
        if isinstance(value, Mapping):
            return {self._text(key, namespace): self._renamed(inner, namespace) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._renamed(inner, namespace) for inner in value]
        return self._text(value, namespace) if isinstance(value, str) else value

    def _text(self, text: str, namespace: str) -> str:
        for beginning in _EIGHT.findall(text):
            if beginning in self._uids:
                uid, name = self._uids[beginning]
                text = text.replace(uid, name).replace(uid[:12], name).replace(uid[:8], name)
        for digested, name in self._maps.items():
            text = text.replace(digested, name)
        # Pods of a Job have five letters of chance in their names.
        return re.sub(r"(-\d+-\d+)-[a-z0-9]{5}\b", r"\1", text).replace(namespace, "<namespace>")


def _lasting(status: Any) -> Any:
    if isinstance(status, Mapping):
        return {key: _lasting(value) for key, value in status.items() if not _PASSING.search(key)}
    return [_lasting(value) for value in status] if isinstance(status, list) else status


def _labels(obj: Json) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _owner(obj: Json) -> str:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


@contextmanager
def witnessing(server: Server, namespace: str, witness: Witness | None = None) -> Iterator[Witness]:
    """Sees everything from now to the end of the context."""
    witness = witness or Witness()

    async def begin() -> ApiClient:
        client = ApiClient(server)
        witness.tasks = [asyncio.create_task(client.observe(path.format(namespace), witness.see)) for path in _PATHS]
        return client

    with LoopThread("witness") as loop:
        client = loop.call(begin())
        try:
            yield witness
        finally:
            loop.call(client.close())
