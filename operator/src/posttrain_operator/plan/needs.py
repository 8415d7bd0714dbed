"""What all pods of an object need together, in the words of a ResourceQuota."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydantic import ValidationError

from posttrain_operator.api.quantities import to_amount
from posttrain_operator.api.run import Resources
from posttrain_operator.cluster import Json
from posttrain_operator.observe.raw import integer, mapping
from posttrain_operator.plan.pods import SCRATCH, SCRATCH_LIMIT

Amounts = Mapping[str, Decimal]

_CONTAINER: Final = ("", "requests.", "limits.")


@dataclass(frozen=True)
class Needs:
    """A gang of equal pods and the objects around them."""

    pods: int
    each: Amounts
    """What one pod needs."""
    objects: Amounts
    """Objects that are counted, by ``count/...`` or their plural."""

    @property
    def total(self) -> Amounts:
        """What the whole gang needs."""
        return {**self.share(self.pods), **self.objects}

    def share(self, pods: int) -> Amounts:
        """What some of its pods need."""
        return {resource: amount * pods for resource, amount in self.each.items()}


def needs(raw: Json) -> Needs | None:
    """The needs of an object's gang, from its spec alone; None where that cannot be read."""
    spec = mapping(raw.get("spec"))
    try:
        resources = Resources.parse(mapping(mapping(spec.get("run")).get("resources")))
    except ValidationError:
        return None
    pods, objects = _GANGS[raw["kind"]](spec)
    return Needs(pods, _each(resources), {key: Decimal(number) for key, number in objects.items()})


def _each(resources: Resources) -> Amounts:
    amounts: dict[str, Decimal] = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for name, quantity in (("cpu", resources.cpu), ("memory", resources.memory)):
        amounts |= {f"{prefix}{name}": to_amount(quantity) or Decimal(0) for prefix in _CONTAINER}
    if resources.gpus:
        amounts |= {f"{prefix}{resources.gpu_resource}": Decimal(resources.gpus) for prefix in _CONTAINER}
    return {**amounts, f"limits.{SCRATCH}": to_amount(SCRATCH_LIMIT) or Decimal(0)}


def _number(spec: Json, *path: str) -> int:
    """A field that counts pods; its default is 1 everywhere."""
    *outer, last = path
    for key in outer:
        spec = mapping(spec.get(key))
    found = integer(spec.get(last))
    return 1 if found is None else found


def _job(spec: Json) -> tuple[int, dict[str, int]]:
    return _number(spec, "parallelism"), _counted(("jobs", "batch", 1), ("configmaps", "", 1))


def _upload(_: Json) -> tuple[int, dict[str, int]]:
    return 1, _counted(("jobs", "batch", 1), ("configmaps", "", 1))


def _training(spec: Json) -> tuple[int, dict[str, int]]:
    nodes = _number(spec, "distributed", "nodes")
    # The training operator makes a Service for every pod.
    return nodes, _counted(("pytorchjobs", "kubeflow.org", 1), ("configmaps", "", 1), ("services", "", nodes))


def _rl(spec: Json) -> tuple[int, dict[str, int]]:
    counted = (("pytorchjobs", "kubeflow.org", 1), ("statefulsets", "apps", 1), ("configmaps", "", 2))
    return _number(spec, "rollout", "replicas") + 1, _counted(*counted, ("services", "", 2))


def _counted(*objects: tuple[str, str, int]) -> dict[str, int]:
    """Numbers of objects under every name that a quota may give them."""
    counted: dict[str, int] = {}
    for plural, group, number in objects:
        counted[f"count/{plural}{'.' if group else ''}{group}"] = number
        if not group:
            counted[plural] = number
    return counted


_GANGS: Final = {"FilterJob": _job, "FineTuneJob": _training, "RLJob": _rl, "UploadJob": _upload}
