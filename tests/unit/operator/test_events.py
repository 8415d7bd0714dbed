"""What people are told, once, when something happens to an object."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.api.status import Attempt, Status
from posttrain_operator.cluster import Event
from posttrain_operator.events import transition_events
from posttrain_operator.labels import Reason
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.status import next_status
from support.scene import SPECS, SUCCESS, Scene, failure, retried, started

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def told(scene: Scene) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in scene.cluster.events.values()]


def status(state: State, *attempts: Attempt, now: datetime = NOON) -> Status:
    return next_status(Status(), Plan(state, attempts=attempts), None, generation=1, now=now)


def event(before: Status, after: Status) -> Event:
    (found,) = transition_events(before, after, uid="u")
    return found


@pytest.mark.parametrize("kind", SPECS)
def test_on_the_good_way_there_are_two(kind: str) -> None:
    scene = started(kind)
    scene.wait()
    scene.settle()
    scene.end_workers(0, SUCCESS)
    scene.settle()
    assert told(scene) == [("Normal", "Running"), ("Normal", "Succeeded")]


def test_a_failure_that_is_tried_again_and_one_that_is_final_are_warnings() -> None:
    scene = started(run={"retries": 1})
    for _ in range(2):
        scene.end_workers(147, failure(ExitCode.STORAGE, "DiskFull", "only 3 MiB are free"))
        retried(scene)
        scene.start_pods()
        scene.settle()
    assert told(scene) == [
        ("Normal", "Running"),
        ("Warning", "Retrying"),
        ("Normal", "Running"),
        ("Warning", "DiskFull"),
    ]
    messages = [event.message for event in scene.cluster.events.values()]
    assert messages[1] == "attempt 1 ended: DiskFull: only 3 MiB are free"
    assert messages[3] == "only 3 MiB are free (after 2 attempts)"


def test_a_preemption_is_no_warning() -> None:
    scene = started()
    scene.end_workers(143, failure(ExitCode.PREEMPTED))
    scene.settle()
    assert told(scene) == [("Normal", "Running"), ("Normal", "Preempted")]


def test_a_suspension_is_told_once_though_it_takes_a_while() -> None:
    scene = started()
    scene.cluster.edit(scene.ref, run={"suspend": True})
    scene.settle()
    scene.end_stopped_pods()
    scene.settle()
    assert told(scene) == [("Normal", "Running"), ("Normal", "Suspended")]


@pytest.mark.parametrize(
    "reason",
    [
        Reason.INVALID_SPEC,
        Reason.INPUT_FAILED,
        Reason.NAME_TAKEN,
        Reason.IMAGE_PULL_FAILED,
        Reason.UNSCHEDULABLE,
        Reason.PENDING_DEADLINE_EXCEEDED,
        Reason.DEADLINE_EXCEEDED,
        Reason.RETRYING,
    ],
)
def test_trouble_is_a_warning(reason: Reason) -> None:
    found = event(Status(), status(State("Pending", reason, "why")))
    assert (found.type, found.reason, found.message) == ("Warning", reason, "why")


def test_nothing_is_told_while_the_reason_stays() -> None:
    before = status(State("Starting", Reason.UNSCHEDULABLE, "0/3 nodes"))
    after = status(State("Starting", Reason.UNSCHEDULABLE, "0/4 nodes"))
    assert transition_events(before, after, uid="u") == []


FIRST, SECOND = Attempt(number=1, start_time=NOON), Attempt(number=2, start_time=NOON)


def test_of_one_attempt_a_reason_is_told_once_whatever_it_says() -> None:
    one = event(Status(), status(State("Starting", Reason.UNSCHEDULABLE, "0/3 nodes"), FIRST))
    again = event(Status(), status(State("Starting", Reason.UNSCHEDULABLE, "0/4 nodes"), FIRST))
    later = event(Status(), status(State("Starting", Reason.UNSCHEDULABLE, "0/3 nodes"), FIRST, SECOND))
    assert one.name == again.name
    assert one.name != later.name


def test_before_the_first_attempt_what_is_said_tells_events_apart() -> None:
    one = event(Status(), status(State("Waiting", Reason.INPUT_FAILED, "FilterJob/a failed")))
    other = event(Status(), status(State("Waiting", Reason.INPUT_FAILED, "FilterJob/b failed")))
    assert one.name != other.name


@settings(deadline=None)
@given(reason=st.sampled_from(Reason), message=st.text(max_size=9), seconds=st.integers(0, 9), attempts=st.booleans())
def test_a_transition_that_is_told_again_has_the_same_name(
    reason: Reason, message: str, seconds: int, *, attempts: bool
) -> None:
    state, history = State("Pending", reason, message), (FIRST,) if attempts else ()
    first = transition_events(Status(), status(state, *history), uid="u")
    again = transition_events(Status(), status(state, *history, now=NOON + timedelta(seconds=seconds)), uid="u")
    assert first == again
    names: Any = [event.name for event in first]
    assert all(name.isalnum() and len(name) == 16 for name in names)
    assert names != [event.name for event in transition_events(Status(), status(state, *history), uid="v")] or not names
