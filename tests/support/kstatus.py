"""What tools make of an object's status, and which sequences of statuses must never be seen.

Everything works on plain objects, as an API server sends them, whether a test made them or a watch.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, Literal

Json = dict[str, Any]

REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
MAX_ATTEMPTS: Final = 256
_ALWAYS: Final = {"Ready", "Reconciling", "Stalled", "Running", "Succeeded", "Failed", "Suspended"}
_PHASES: Final = {"Running": "Running", "Succeeded": "Succeeded", "Suspended": "Suspended"}
"""The phase that each of these conditions stands for."""

KStatus = Literal["Terminating", "InProgress", "Failed", "Current"]


class IllegalStatusError(AssertionError):
    """A status, or a step from one to the next, that must never be seen."""


def kstatus(obj: Json) -> KStatus:
    """The status of any object by the rules of kstatus, in its order; an object that says nothing is Current."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation", 1):
        return "InProgress"
    told = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if told.get("Reconciling") == "True":
        return "InProgress"
    if told.get("Stalled") == "True":
        return "Failed"
    if "Ready" in told:
        return "Current" if told["Ready"] == "True" else "InProgress"
    return "Current"


class StatusFollower:
    """Follows objects through everything that is seen of them, and fails at the first thing that must not be."""

    def __init__(self) -> None:
        self._last: dict[str, Json] = {}

    def see(self, obj: Json) -> None:
        """The next state of an object. Raises ``IllegalStatusError`` with everything that is wrong."""
        metadata = obj["metadata"]
        uid = metadata.get("uid", metadata["name"])
        before = self._last.get(uid)
        wrong = [*wrong_in(obj), *(wrong_step(before, obj) if before is not None else ())]
        if wrong:
            raise IllegalStatusError(f"{obj['kind']}/{metadata['name']}: {'; '.join(wrong)}")
        self._last[uid] = obj


def wrong_in(obj: Json) -> Iterator[str]:
    """What must not be in one state of an object; an object without a status has not been looked at yet."""
    status = obj.get("status")
    if not status:
        return
    generation = obj["metadata"].get("generation", 1)
    if status.get("observedGeneration", 0) > generation:
        yield f"observedGeneration {status['observedGeneration']} is above the generation {generation}"
    yield from _wrong_conditions(status.get("conditions", []), generation)
    yield from _wrong_phase(obj, status)
    yield from _wrong_attempts(status)
    if status.get("completionTime", "9") < status.get("startTime", "0"):
        yield f"completionTime {status['completionTime']} is before startTime {status['startTime']}"


def wrong_step(before: Json, after: Json) -> Iterator[str]:
    """What must not happen between two states of the same object."""
    old, new = before.get("status") or {}, after.get("status") or {}
    if old and not new:
        yield "the status vanished"
        return
    for name, was, now in (
        ("generation", before["metadata"].get("generation", 1), after["metadata"].get("generation", 1)),
        ("observedGeneration", old.get("observedGeneration", 0), new.get("observedGeneration", 0)),
        ("gpuSeconds", old.get("gpuSeconds", 0), new.get("gpuSeconds", 0)),
    ):
        if now < was:
            yield f"{name} went back from {was} to {now}"
    for name in ("startTime", "completionTime", "artifact"):
        if name in old and old[name] != new.get(name):
            yield f"{name} changed from {old[name]} to {new.get(name)}"
    if old.get("attempts") and old.get("inputs") != new.get("inputs"):
        yield f"inputs changed from {old.get('inputs')} to {new.get('inputs')} after the first attempt"
    yield from _wrong_turns(old, new)
    yield from _wrong_history(old.get("attempts", []), new.get("attempts", []))


def _wrong_conditions(conditions: list[Json], generation: int) -> Iterator[str]:
    told = _statuses(conditions)
    if len(told) != len(conditions):
        yield f"a condition is told twice: {[c['type'] for c in conditions]}"
    if missing := _ALWAYS - told.keys():
        yield f"conditions are missing: {sorted(missing)}"
    for condition in conditions:
        if condition["status"] not in ("True", "False", "Unknown"):
            yield f"condition {condition['type']} is {condition['status']!r}"
        if not REASON.fullmatch(condition["reason"]):
            yield f"reason {condition['reason']!r} of {condition['type']} is no CamelCase word"
        if condition.get("observedGeneration", 0) > generation:
            yield f"condition {condition['type']} speaks of a generation to come"
    for one, other in (
        ("Reconciling", "Stalled"),
        ("Ready", "Stalled"),
        ("Ready", "Reconciling"),
        ("Succeeded", "Failed"),
    ):
        if told.get(one) == told.get(other) == "True":
            yield f"{one} and {other} are both True"


def _wrong_phase(obj: Json, status: Json) -> Iterator[str]:
    phase, told = status.get("phase"), _statuses(status.get("conditions", []))
    for kind, meant in _PHASES.items():
        if (told.get(kind) == "True") != (phase == meant):
            yield f"phase is {phase}, and condition {kind} is {told.get(kind)}"
    if told.get("Failed") == "True" and phase != "Failed":
        yield f"phase is {phase}, and condition Failed is True"
    if phase == "Failed" and told.get("Stalled") != "True":
        yield "phase is Failed, and condition Stalled is not True"
    if told.get("Ready") == "True" and told.get("Succeeded") != "True":
        yield "Ready before it succeeded"
    if told.get("Succeeded") == "True" and not status.get("artifact"):
        yield "Succeeded without an artifact"
    if _finished(told) != ("completionTime" in status):
        yield f"completionTime is {status.get('completionTime')}, and it has {'' if _finished(told) else 'not '}ended"
    if kstatus(obj) == "Current" and told.get("Succeeded") != "True":
        yield "Current before it succeeded"


def _wrong_attempts(status: Json) -> Iterator[str]:
    attempts = status.get("attempts", [])
    numbers = [attempt["number"] for attempt in attempts]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        yield f"attempts are not in order: {numbers}"
    running = [attempt["number"] for attempt in attempts if "endTime" not in attempt]
    if running and running != numbers[-1:]:
        yield f"attempts {running} are open, and {numbers[-1]} is the last"
    if running and _finished(_statuses(status.get("conditions", []))):
        yield f"it has ended, and attempt {running} is open"
    for attempt in attempts:
        if ("endTime" in attempt) != ("outcome" in attempt):
            yield f"attempt {attempt['number']} has an end without an outcome, or an outcome without an end"
        if attempt.get("endTime", "9") < attempt["startTime"]:
            yield f"attempt {attempt['number']} ended before it began"


def _wrong_turns(old: Json, new: Json) -> Iterator[str]:
    """Conditions and phase from one state to the next."""
    was = {condition["type"]: condition for condition in old.get("conditions", [])}
    now = {condition["type"]: condition for condition in new.get("conditions", [])}
    for kind in was.keys() & now.keys():
        same = was[kind]["status"] == now[kind]["status"]
        if same and was[kind]["lastTransitionTime"] != now[kind]["lastTransitionTime"]:
            yield f"lastTransitionTime of {kind} changed, and its status did not"
    told = _statuses(old.get("conditions", []))
    if _finished(told):
        later = _statuses(new.get("conditions", []))
        if told != later or old.get("phase") != new.get("phase"):
            yield f"it had ended as {old.get('phase')} {told}, and now is {new.get('phase')} {later}"
        if old.get("attempts") != new.get("attempts"):
            yield "it had ended, and its attempts changed"


def _wrong_history(old: list[Json], new: list[Json]) -> Iterator[str]:
    later = {attempt["number"]: attempt for attempt in new}
    for attempt in old:
        number, found = attempt["number"], later.get(attempt["number"])
        if found is None:
            if attempt.get("outcome") in (None, "Failed") or len(old) < MAX_ATTEMPTS:
                yield f"attempt {number} vanished"
        elif "endTime" in attempt and found != attempt:
            yield f"attempt {number} had ended, and changed from {attempt} to {found}"
        elif found["startTime"] != attempt["startTime"]:
            yield f"startTime of attempt {number} changed"
    newest = max((attempt["number"] for attempt in old), default=0)
    for number in later.keys() - {attempt["number"] for attempt in old}:
        if number <= newest:
            yield f"attempt {number} appeared after attempt {newest}"


def _statuses(conditions: list[Json]) -> Mapping[str, str]:
    return {condition["type"]: condition["status"] for condition in conditions}


def _finished(told: Mapping[str, str]) -> bool:
    return "True" in (told.get("Succeeded"), told.get("Failed"))
