"""The cluster as the loop sees it; the Kubernetes adapter and the local executor implement it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from posttrain_contract.progress import Progress

Json = dict[str, Any]
"""A Kubernetes object, as decoded JSON."""


@dataclass(frozen=True)
class Ref:
    """Names one object."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Self:
        """The reference to a given object."""
        return cls(obj["apiVersion"], obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class Cluster(Protocol):
    """What the loop needs of a cluster. Errors are those of ``posttrain_operator.errors``."""

    async def get(self, ref: Ref) -> Json | None:
        """The object, or None when there is none."""

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        """The objects of one kind that carry all the labels."""

    async def create(self, obj: Json) -> Json:
        """Creates an object and returns it as stored. Raises ``Conflict`` when the name is taken."""

    async def delete(self, ref: Ref, *, uid: str) -> None:
        """Deletes the object if it still has this uid; its dependents follow. Absence is success."""

    async def patch_status(self, obj: Json, status: Json) -> None:
        """Replaces the status of the object. Raises ``Conflict`` when it has changed since it was read."""

    async def progress(self, pod: Json) -> Progress | None:
        """What the pod's stage answers at /progress, or None when it does not answer yet."""

    def server_address(self, *, namespace: str, service: str, pod: str) -> str:
        """The host under which other pods reach a StatefulSet's pod."""
