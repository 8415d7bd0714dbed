"""The cluster as the loop sees it; the Kubernetes adapter and the local executor implement it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

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


@dataclass(frozen=True)
class Event:
    """Something that people are told about an object, once."""

    name: str
    """What tells it from the object's other events; the same transition has the same name."""
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Cluster(Protocol):
    """What the loop needs of a cluster. Errors are those of ``posttrain_operator.errors``."""

    async def get(self, ref: Ref) -> Json | None:
        """The object as it was seen last, or None when there is none."""

    async def read(self, ref: Ref) -> Json | None:
        """The object as it is now; costs a request."""

    async def list_objects(self, api_version: str, kind: str, namespace: str, wanted: Mapping[str, str]) -> list[Json]:
        """The objects of one kind that carry all the labels, as they were seen last; namespace "" means all."""

    async def refresh(self, namespace: str, wanted: Mapping[str, str]) -> None:
        """Asks again for the children and pods with these labels: before anything is concluded from absence."""

    async def create(self, obj: Json) -> Json:
        """Creates an object and returns it as stored. Raises ``Conflict`` when the name is taken."""

    async def repair(self, obj: Json) -> None:
        """Brings an object of ours back to what it was made as; what others have added stays."""

    async def delete(self, ref: Ref, *, uid: str) -> None:
        """Deletes the object if it still has this uid; its dependents follow. Absence is success."""

    async def patch_status(self, obj: Json, status: Json) -> Json:
        """Replaces the status and returns the object. Raises ``Conflict`` when it has changed since it was read."""

    async def tell(self, obj: Json, event: Event) -> None:
        """Shows people what has happened to the object. Never raises: nothing depends on it."""

    async def progress(self, pod: Json) -> Progress | None:
        """What the pod's stage answers at /progress, or None when it does not answer yet."""

    def server_address(self, *, namespace: str, service: str, pod: str) -> str:
        """The host under which other pods reach a StatefulSet's pod."""
