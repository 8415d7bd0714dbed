"""ResourceQuotas of a namespace."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from posttrain_operator.api.quantities import to_amount
from posttrain_operator.cluster import Json
from posttrain_operator.observe.raw import mapping, mappings, text

API_VERSION: Final = "v1"
KIND: Final = "ResourceQuota"

_OURS: Final = {
    "Terminating": False,  # pods have no deadline of their own
    "NotTerminating": True,
    "BestEffort": False,  # every container has requests and limits
    "NotBestEffort": True,
    "PriorityClass": False,  # pods name none
    "CrossNamespacePodAffinity": False,
}
"""Whether a scope of a quota selects the pods of stages."""


@dataclass(frozen=True)
class Quota:
    """One ResourceQuota that counts the pods of stages."""

    name: str
    hard: Mapping[str, Decimal]
    """What may be used in all, by the quota's own words for resources."""
    free: Mapping[str, Decimal]
    """What is left of it."""


def observe_quota(raw: Json) -> Quota | None:
    """The facts of a ResourceQuota, or None when its scopes leave the pods of stages out."""
    spec, status = mapping(raw.get("spec")), mapping(raw.get("status"))
    if not _counts_our_pods(spec):
        return None
    hard = _amounts(status.get("hard") or spec.get("hard"))
    used = _amounts(status.get("used"))
    free = {resource: limit - used.get(resource, Decimal(0)) for resource, limit in hard.items()}
    return Quota(raw["metadata"]["name"], hard, free)


def _counts_our_pods(spec: Json) -> bool:
    scopes = spec.get("scopes")
    named = [_OURS.get(text(scope), False) for scope in scopes] if isinstance(scopes, list) else []
    return all(named) and all(map(_selects, mappings(mapping(spec.get("scopeSelector")).get("matchExpressions"))))


def _selects(expression: Json) -> bool:
    in_scope = _OURS.get(text(expression.get("scopeName")), False)
    if expression.get("operator") in ("NotIn", "DoesNotExist"):
        return not in_scope
    return in_scope


def _amounts(resources: object) -> dict[str, Decimal]:
    """What can be read; a quantity that is none is left out."""
    amounts = {resource: to_amount(quantity) for resource, quantity in mapping(resources).items()}
    return {resource: amount for resource, amount in amounts.items() if amount is not None}
