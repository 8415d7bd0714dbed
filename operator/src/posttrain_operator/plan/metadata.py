"""The metadata that every child carries."""

from dataclasses import dataclass

from posttrain_operator import labels, names
from posttrain_operator.api.resources import KINDS, Resource
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import Role


@dataclass(frozen=True)
class Child:
    """Whose child it is, in which attempt, doing what."""

    resource: Resource
    attempt: int
    role: Role

    @property
    def stage(self) -> str:
        """The stage program that its pods run."""
        return "serve" if self.role is Role.SERVERS else KINDS[self.resource.ref.kind].stage

    @property
    def name(self) -> str:
        """Its name, unless its content names it.

        It has the stage and not the role in it, because a FineTuneJob and an RLJob of one name both have trainers.
        """
        return names.child(self.resource.ref.name, self.stage, self.attempt)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; pods carry the same."""
        ref = self.resource.ref
        return {
            "app.kubernetes.io/name": ref.kind.lower(),
            "app.kubernetes.io/managed-by": labels.MANAGER,
            "app.kubernetes.io/part-of": "posttrain",
            labels.ROLE: self.role.value,
            labels.KIND: ref.kind,
            labels.NAME: ref.name,
            labels.ATTEMPT: str(self.attempt),
        }

    def metadata(self, name: str | None = None) -> Json:
        """Its metadata, with the owner whose deletion deletes it."""
        ref = self.resource.ref
        return {
            "name": name or self.name,
            "namespace": ref.namespace,
            "labels": self.labels,
            "ownerReferences": [
                {
                    "apiVersion": ref.api_version,
                    "kind": ref.kind,
                    "name": ref.name,
                    "uid": self.resource.uid,
                    "controller": True,
                }
            ],
        }

    def queued_metadata(self) -> Json:
        """The metadata of a child that a queue admits, see ``run.queue``."""
        metadata = self.metadata()
        run = self.resource.run
        priority = run.priority_class if run.queue else None
        queue = {labels.QUEUE: run.queue, labels.RUN_QUEUE: run.queue, labels.PRIORITY: priority}
        metadata["labels"] = {**metadata["labels"], **{key: value for key, value in queue.items() if value}}
        return metadata


def selector(ref: Ref) -> dict[str, str]:
    """The labels by which an object's children are found."""
    return {labels.KIND: ref.kind, labels.NAME: ref.name}
