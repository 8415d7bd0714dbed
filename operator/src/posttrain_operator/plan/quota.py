"""Whether a whole gang has room in the ResourceQuotas of its namespace, before its first child is made.

A part of a gang holds what it has and waits for the rest, and two parts wait for each other.
"""

from decimal import Decimal

from posttrain_operator.api.quantities import to_quantity
from posttrain_operator.labels import Reason
from posttrain_operator.observe.contenders import Contender
from posttrain_operator.observe.quota import Quota
from posttrain_operator.observe.surroundings import Surroundings
from posttrain_operator.plan.needs import Amounts, Needs, needs
from posttrain_operator.plan.types import State


def shortage(surroundings: Surroundings) -> State | None:
    """Why the gang must wait, or None when there is room for all of it."""
    me = surroundings.me
    mine = needs(me.raw) if me is not None else None
    if me is None or mine is None or not surroundings.quotas:
        return None
    left = [_Left(quota) for quota in surroundings.quotas]
    for quota in left:
        if (resource := quota.lacking(mine.total, of=quota.hard)) is not None:
            return _never(quota, resource, mine)
    for quota in left:
        if (resource := quota.lacking(mine.total)) is not None:
            return _exceeded(quota, resource, mine)
    _give_to_others(me, surroundings, left)
    for quota in left:
        if (resource := quota.lacking(mine.total)) is not None:
            return _exceeded(quota, resource, mine, others=True)
    return None


class _Left:
    """What is left of a quota while it is given out."""

    def __init__(self, quota: Quota) -> None:
        self.name = quota.name
        self.hard = quota.hard
        self.free = dict(quota.free)

    def lacking(self, wanted: Amounts, *, of: Amounts | None = None) -> str | None:
        """The first resource that does not suffice."""
        there = self.free if of is None else of
        return next((key for key, amount in wanted.items() if key in there and amount > there[key]), None)

    def take(self, amounts: Amounts) -> None:
        for key, amount in amounts.items():
            if key in self.free:
                self.free[key] -= amount


def _give_to_others(me: Contender, surroundings: Surroundings, left: list[_Left]) -> None:
    """Takes away what others come first with: pods that are not made yet, and older gangs that have room themselves."""
    others = [(other, wanted) for other in surroundings.contenders if (wanted := _wants(other)) is not None]
    for other, wanted in others:
        if other.attempt is not None:
            made = surroundings.pods.get((other.kind, other.name, other.attempt), 0)
            _take(left, wanted.share(max(0, wanted.pods - made)))
    waiting = [pair for pair in others if pair[0].attempt is None and _waits(pair[0]) and pair[0].turn < me.turn]
    for _, wanted in sorted(waiting, key=lambda pair: pair[0].turn):
        if all(quota.lacking(wanted.total) is None for quota in left):
            _take(left, wanted.total)


def _take(left: list[_Left], amounts: Amounts) -> None:
    for quota in left:
        quota.take(amounts)


def _wants(other: Contender) -> Needs | None:
    return None if other.over or other.stuck else needs(other.raw)


def _waits(other: Contender) -> bool:
    return other.unseen or other.reason == Reason.QUOTA_EXCEEDED


def _never(quota: _Left, resource: str, mine: Needs) -> State:
    allowed = _amount(quota.hard[resource])
    message = (
        f"ResourceQuota {quota.name} allows {allowed} {resource} in all, {_wanted(mine, resource)}; "
        "ask for a larger quota, or lower run.resources or the number of pods"
    )
    return State("Queued", Reason.NEVER_FITS, message, stalled=True)


def _exceeded(quota: _Left, resource: str, mine: Needs, *, others: bool = False) -> State:
    free = max(quota.free[resource], Decimal(0))
    first = " after objects that came first" if others else ""
    message = (
        f"ResourceQuota {quota.name} has {_amount(free)} of {_amount(quota.hard[resource])} {resource} free{first}, "
        f"{_wanted(mine, resource)}"
    )
    return State("Queued", Reason.QUOTA_EXCEEDED, message)


def _wanted(mine: Needs, resource: str) -> str:
    return f"and this object needs {_amount(mine.total[resource])} for {mine.pods} pod{'s' if mine.pods > 1 else ''}"


def _amount(amount: Decimal) -> str:
    return to_quantity(amount)
