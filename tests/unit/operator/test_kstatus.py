"""The checker of status sequences lets every life pass, and catches what must never be seen."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from posttrain_operator.api.status import Attempt, InputStatus, Status
from posttrain_operator.labels import Reason
from posttrain_operator.plan.types import Admission, Plan, State
from posttrain_operator.status import defect_status, invalid_status, next_status, seen_status
from support.kstatus import IllegalStatusError, StatusFollower, kstatus
from support.scene import ARTIFACT

Json = dict[str, Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
INPUTS = {"model": InputStatus(uri="pvc://a/b")}
STARTING = State("Starting", Reason.STARTING, "pods are starting")
RUNNING = State("Running", Reason.RUNNING, "attempt 1 is at work")
RETRYING = State("Pending", Reason.RETRYING, "attempt 1 ended")
SUCCEEDED = State("Succeeded", Reason.SUCCEEDED, "the artifact is published and verified")
FAILED = State("Failed", "Diverged", "the loss is no number", stalled=True)
OPEN = Attempt(number=1, start_time=NOON)
AT_WORK = OPEN.model_copy(update={"running_time": NOON, "gpus": 8})
ENDED = AT_WORK.model_copy(update={"end_time": NOON + timedelta(hours=1), "outcome": "Failed"})
DONE = ENDED.model_copy(update={"outcome": "Succeeded"})


def obj(status: Status | Json | None, *, generation: int = 1) -> Json:
    told = status.to_json() if isinstance(status, Status) else status
    metadata = {"name": "x", "uid": "u", "generation": generation}
    return {"kind": "FineTuneJob", "metadata": metadata, **({} if told is None else {"status": told})}


def life(*plans: Plan) -> list[Status]:
    """The statuses that these plans lead to, an hour after one another."""
    statuses = [Status()]
    for hour, plan in enumerate(plans):
        now = NOON + timedelta(hours=hour)
        statuses.append(next_status(statuses[-1], plan, None, generation=1, now=now))
    return statuses[1:]


def begun(state: State = STARTING, *attempts: Attempt, **plan: Any) -> Plan:
    return Plan(state, attempts=attempts or (OPEN,), inputs=INPUTS, **plan)


SUCCESS = life(
    Plan(State("Waiting", Reason.WAITING_FOR_ARTIFACT, "FilterJob/x is Pending")),
    begun(),
    begun(RUNNING, AT_WORK),
    begun(SUCCEEDED, DONE, artifact=ARTIFACT),
)


def see_all(*states: Json) -> None:
    follower = StatusFollower()
    for state in states:
        follower.see(state)


def test_a_life_that_succeeds_passes() -> None:
    see_all(obj(None), *map(obj, SUCCESS))


def test_a_life_with_a_retry_a_suspension_and_a_failure_passes() -> None:
    second = Attempt(number=2, start_time=NOON + timedelta(hours=4))
    suspended = second.model_copy(update={"end_time": second.start_time, "outcome": "Suspended"})
    third = Attempt(number=3, start_time=NOON + timedelta(hours=6))
    end = third.model_copy(update={"end_time": third.start_time, "outcome": "Failed"})
    see_all(
        *map(
            obj,
            life(
                begun(State("Queued", Reason.QUEUED, "waiting"), admission=Admission(Reason.QUEUED, "waiting")),
                begun(RUNNING, AT_WORK),
                begun(RETRYING, ENDED),
                begun(STARTING, ENDED, second),
                begun(State("Suspended", Reason.SUSPENDED, "stopping"), ENDED, second),
                begun(State("Suspended", Reason.SUSPENDED, "stopped"), ENDED, suspended),
                begun(STARTING, ENDED, suspended, third),
                begun(FAILED, ENDED, suspended, end),
            ),
        )
    )


def test_edits_defects_and_wrong_specs_on_the_way_pass() -> None:
    running = life(begun(), begun(RUNNING, AT_WORK))[-1]
    wrong = invalid_status(running, "spec.run.retries: must not be negative", generation=2, now=NOON)
    mended = next_status(wrong, begun(RUNNING, AT_WORK), None, generation=3, now=NOON)
    unknown = defect_status(mended, "TypeError", generation=3, now=NOON)
    over = next_status(unknown, begun(FAILED, ENDED), None, generation=3, now=NOON + timedelta(hours=2))
    see_all(
        obj(running),
        obj(running, generation=2),
        obj(wrong, generation=2),
        obj(wrong, generation=3),
        obj(mended, generation=3),
        obj(unknown, generation=3),
        obj(over, generation=3),
        obj(seen_status(over, generation=4), generation=4),
    )


def test_a_defect_in_the_first_pass_is_told_in_full() -> None:
    see_all(obj(None), obj(defect_status(Status(), "TypeError", generation=1, now=NOON)), *map(obj, SUCCESS))


def test_of_very_many_attempts_free_ones_may_go() -> None:
    many = tuple(
        Attempt(number=n, start_time=NOON, end_time=NOON, outcome="Failed" if n == 2 else "Preempted")
        for n in range(1, 257)
    )
    last = Attempt(number=257, start_time=NOON)
    see_all(*map(obj, life(begun(RETRYING, *many), begun(STARTING, *many, last))))


def test_what_tools_make_of_a_life() -> None:
    assert kstatus(obj(None)) == "Current"
    assert [kstatus(obj(status)) for status in SUCCESS] == ["InProgress", "InProgress", "InProgress", "Current"]
    assert kstatus(obj(SUCCESS[-1], generation=2)) == "InProgress"
    failed = life(begun(), begun(FAILED, ENDED))[-1]
    assert kstatus(obj(failed)) == "Failed"
    suspended = life(Plan(State("Suspended", Reason.SUSPENDED, "stopped")))[-1]
    assert kstatus(obj(suspended)) == "InProgress"
    gone = obj(SUCCESS[-1])
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert kstatus(gone) == "Terminating"


def changed(status: Status, path: str, value: Any) -> Json:
    """A status with another value somewhere; ``conditions.Ready.status`` names a condition by its type."""
    told = copy.deepcopy(status.to_json())
    *parents, last = path.split(".")
    inner: Any = told
    for name in parents:
        if isinstance(inner, list):
            inner = next(c for c in inner if c["type"] == name) if name.isalpha() else inner[int(name)]
        else:
            inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return told


LATER = "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("observedGeneration", 2, "observedGeneration 2 is above"),
        ("conditions.Stalled.status", "True", "Reconciling and Stalled are both True"),
        ("conditions.Ready.status", "True", "Ready before it succeeded"),
        ("conditions.Succeeded.status", "True", "phase is Running, and condition Succeeded is True"),
        ("conditions.Failed.status", "True", "phase is Running, and condition Failed is True"),
        ("conditions.Running.status", "False", "phase is Running, and condition Running is False"),
        ("conditions.Running.status", "Maybe", "is 'Maybe'"),
        ("conditions.Running.reason", "no word", "no CamelCase word"),
        ("conditions.Running.type", "Ready", "told twice"),
        ("conditions.Suspended.type", "Asleep", "conditions are missing: ['Suspended']"),
        ("conditions.Running.observedGeneration", 7, "a generation to come"),
        ("phase", "Starting", "phase is Starting, and condition Running is True"),
        ("phase", "Failed", "phase is Failed, and condition Stalled is not True"),
        ("completionTime", "2026-01-01T11:00:00Z", "is before startTime"),
        ("completionTime", LATER, "it has not ended"),
        ("attempts.0.endTime", LATER, "an end without an outcome"),
        ("attempts.0.outcome", "Failed", "an outcome without an end"),
    ],
)
def test_a_state_that_must_not_be_is_caught(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(IllegalStatusError) as caught:
        see_all(obj(changed(SUCCESS[2], path, value)))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("artifact", None, "Succeeded without an artifact"),
        ("completionTime", None, "it has ended"),
        ("conditions.Succeeded.status", "False", "Current before it succeeded"),
        ("attempts.0.endTime", None, "attempt [1] is open"),
        ("attempts.0.endTime", "2026-01-01T11:00:00Z", "ended before it began"),
    ],
)
def test_an_end_that_must_not_be_is_caught(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(IllegalStatusError) as caught:
        see_all(obj(changed(SUCCESS[-1], path, value)))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("attempts", "complaint"),
    [
        ((ENDED, ENDED), "not in order: [1, 1]"),
        ((OPEN, Attempt(number=2, start_time=NOON)), "attempts [1, 2] are open"),
        ((Attempt(number=2, start_time=NOON), ENDED), "not in order: [2, 1]"),
    ],
)
def test_attempts_that_must_not_be_are_caught(attempts: tuple[Attempt, ...], complaint: str) -> None:
    with pytest.raises(IllegalStatusError) as caught:
        see_all(obj(life(begun(STARTING, *attempts))[-1]))
    assert complaint in str(caught.value)


RETRIED = life(begun(), begun(RETRYING, ENDED), begun(STARTING, ENDED, Attempt(number=2, start_time=NOON)))
OVER = life(begun(), begun(FAILED, ENDED))


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (SUCCESS[2], None, "the status vanished"),
        (SUCCESS[2], changed(SUCCESS[2], "observedGeneration", 0), "observedGeneration went back"),
        (SUCCESS[2], changed(SUCCESS[2], "conditions.Ready.lastTransitionTime", LATER), "its status did not"),
        (SUCCESS[2], changed(SUCCESS[2], "startTime", LATER), "startTime changed"),
        (SUCCESS[2], changed(SUCCESS[2], "inputs.model.uri", "pvc://a/c"), "inputs changed"),
        (SUCCESS[2], changed(SUCCESS[2], "attempts.0.startTime", LATER), "startTime of attempt 1 changed"),
        (SUCCESS[-1], changed(SUCCESS[-1], "artifact.digest", "1" * 64), "artifact changed"),
        (SUCCESS[-1], changed(SUCCESS[-1], "completionTime", LATER), "completionTime changed"),
        (SUCCESS[-1], SUCCESS[2], "it had ended as Succeeded"),
        (SUCCESS[-1], changed(SUCCESS[-1], "gpuSeconds", 0), "gpuSeconds went back"),
        (OVER[-1], OVER[0], "it had ended as Failed"),
        (OVER[-1], changed(OVER[-1], "attempts.0.reason", "Other"), "its attempts changed"),
        (RETRIED[1], changed(RETRIED[1], "attempts.0.outcome", "Preempted"), "attempt 1 had ended, and changed"),
        (RETRIED[2], changed(RETRIED[2], "attempts", [RETRIED[1].to_json()["attempts"][0]]), "attempt 2 vanished"),
        (RETRIED[2], changed(RETRIED[2], "attempts", RETRIED[2].to_json()["attempts"][1:]), "attempt 1 vanished"),
    ],
)
def test_a_step_that_must_not_be_is_caught(before: Status, after: Status | Json | None, complaint: str) -> None:
    with pytest.raises(IllegalStatusError) as caught:
        see_all(obj(before), obj(after))
    assert complaint in str(caught.value)


def test_an_attempt_that_comes_late_is_caught() -> None:
    second = changed(RETRIED[2], "attempts", RETRIED[2].to_json()["attempts"][1:])
    with pytest.raises(IllegalStatusError, match="attempt 1 appeared after attempt 2"):
        see_all(obj(second), obj(RETRIED[2]))


def test_a_new_object_of_the_same_name_starts_anew() -> None:
    follower = StatusFollower()
    follower.see(obj(SUCCESS[-1]))
    again = obj(SUCCESS[0])
    again["metadata"]["uid"] = "another"
    follower.see(again)
