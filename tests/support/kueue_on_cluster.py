"""Queues of the real Kueue for a test: made with names of their own, and taken away with what is in them."""

import uuid
from collections.abc import Sequence
from typing import Final

from posttrain_operator.observe.kueue import API_VERSION
from support.kubectl import Json, NamespacedKubectl
from support.on_cluster import OnCluster

QUEUE: Final = "team"
"""The LocalQueue of every namespace."""
LOW: Final = "low"
HIGH: Final = "high"
_END_SECONDS: Final = 120.0


class KueueOnCluster:
    """A flavor, two priorities, and ClusterQueues of one cohort; no namespace takes them along when it goes."""

    def __init__(self) -> None:
        self._kubectl = NamespacedKubectl("default")
        self._mark = uuid.uuid4().hex[:8]
        self._made: list[str] = []

    def priority(self, name: str) -> str:
        """The WorkloadPriorityClass that is ``LOW`` or ``HIGH`` in this test."""
        return f"{name}-{self._mark}"

    def share(self, scenes: Sequence[OnCluster], *, cpu: str, memory: str) -> None:
        """Gives the first of some teams a quota, which the others may borrow while the first leaves it unused."""
        objects = [
            self._priority(LOW, -100),
            self._priority(HIGH, 1000),
            self._object("ResourceFlavor", self._mark, {}),
        ]
        for number, scene in enumerate(scenes):
            amounts = {"cpu": cpu, "memory": memory} if number == 0 else {"cpu": "0", "memory": "0"}
            objects.append(self._object("ClusterQueue", self._queue(number), self._cluster_queue(scene, amounts)))
        self._made = [f"{obj['kind']}/{obj['metadata']['name']}" for obj in objects]
        self._kubectl.apply(objects)
        for number, scene in enumerate(scenes):
            scene.kubectl.apply([self._object("LocalQueue", QUEUE, {"clusterQueue": self._queue(number)})])

    def remove(self) -> None:
        """Takes everything away; the namespaces with the LocalQueues and Workloads are gone already."""
        # ClusterQueues first: a flavor stays while one of them names it.
        for name in sorted(self._made):
            self._kubectl.run("delete", name, "--ignore-not-found", seconds=_END_SECONDS)

    def _queue(self, number: int) -> str:
        return f"{self._mark}-{number}"

    def _cluster_queue(self, scene: OnCluster, amounts: dict[str, str]) -> Json:
        resources = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
        return {
            "cohortName": self._mark,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.kubectl.namespace}},
            "queueingStrategy": "BestEffortFIFO",
            "preemption": {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any"},
            "resourceGroups": [
                {"coveredResources": [*amounts], "flavors": [{"name": self._mark, "resources": resources}]}
            ],
        }

    def _priority(self, name: str, value: int) -> Json:
        made = self._object("WorkloadPriorityClass", self.priority(name), None)
        return {**made, "value": value}

    def _object(self, kind: str, name: str, spec: Json | None) -> Json:
        obj: Json = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
        return obj if spec is None else {**obj, "spec": spec}
