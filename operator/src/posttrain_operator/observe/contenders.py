"""The other objects that want the same quota, as far as their status tells: raw, because there may be thousands."""

from dataclasses import dataclass
from datetime import datetime

from posttrain_operator.api.quantities import moment
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Reason
from posttrain_operator.observe.kueue import NEVER
from posttrain_operator.observe.raw import integer, mapping, mappings, text


@dataclass(frozen=True)
class Contender:
    """One object that may want quota, now or later."""

    uid: str
    kind: str
    namespace: str
    name: str
    queue: str | None
    created: datetime
    released: datetime | None
    """When it last let quota go for the sake of others."""
    reason: str
    """Why it is in its phase; empty before it was looked at."""
    over: bool
    """Whether it wants nothing, as it stands: finished, suspended or being deleted."""
    stuck: bool
    """Whether it cannot go on by itself, or its queue is closed: nobody waits for it."""
    attempt: int | None
    """The number of its open attempt."""
    admitted: bool
    """Whether its queue has admitted all of it."""
    raw: Json

    @property
    def turn(self) -> tuple[datetime, str, str]:
        """Its place among those that wait: who let go goes to the end."""
        return self.released or self.created, self.namespace, self.name

    @property
    def unseen(self) -> bool:
        """Whether the operator has not looked at it yet."""
        return not self.reason


def observe_contender(raw: Json) -> Contender:
    """What an object's spec and status tell; what is garbled there counts as absent."""
    metadata, status = raw["metadata"], mapping(raw.get("status"))
    run = mapping(mapping(raw.get("spec")).get("run"))
    conditions = mappings(status.get("conditions"))
    holding = [condition.get("type") for condition in conditions if condition.get("status") == "True"]
    reasons = {text(condition.get("type")): text(condition.get("reason")) for condition in conditions}
    reason = reasons.get("Ready", "")
    attempts = mappings(status.get("attempts"))
    last = attempts[-1] if attempts else {}
    released = [ended for a in attempts if a.get("outcome") == "Released" and (ended := moment(a.get("endTime")))]
    return Contender(
        uid=metadata["uid"],
        kind=raw["kind"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        queue=text(run.get("queue")) or None,
        created=moment(metadata.get("creationTimestamp")) or NEVER,
        released=max(released, default=None),
        reason=reason,
        over=bool(
            "Succeeded" in holding or "Failed" in holding or run.get("suspend") or metadata.get("deletionTimestamp")
        ),
        stuck="Stalled" in holding
        or reason == Reason.INTERNAL_ERROR
        or reasons.get("Admitted") == Reason.QUEUE_INACTIVE,
        attempt=None if last.get("endTime") else integer(last.get("number")),
        admitted="Admitted" in holding,
        raw=raw,
    )
