"""Status: conditions in kstatus' meaning, equal when nothing changed, and always within its bounds."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_contract.progress import Progress
from posttrain_operator.api.status import Attempt, InputStatus, Outcome, Phase, Status, read_status
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.status import invalid_status, next_status
from pydantic import ValidationError
from support.scene import ARTIFACT

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
RUNNING = State("Running", "Running", "attempt 1 is at work")
FIRST = Attempt(number=1, start_time=NOON)


def status_of(state: State = RUNNING, *, before: Status | None = None, now: datetime = NOON, **plan: Any) -> Status:
    told = plan.pop("progress", None)
    return next_status(before or Status(), Plan(state, **plan), told, generation=1, now=now)


def holding(status: Status) -> set[str]:
    return {condition.type for condition in status.conditions if condition.status == "True"}


def progress(**fields: Any) -> Progress:
    return Progress(phase="training", updated_at=NOON.timestamp(), **fields)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State("Pending", "Retrying", "m"), {"Reconciling"}),
        (State("Pending", "NameTaken", "m", stalled=True), {"Stalled"}),
        (State("Waiting", "WaitingForArtifact", "m"), {"Reconciling"}),
        (State("Waiting", "InputFailed", "m", stalled=True), {"Stalled"}),
        (State("Queued", "Queued", "m"), {"Reconciling"}),
        (State("Starting", "Starting", "m"), {"Reconciling"}),
        (RUNNING, {"Reconciling", "Running"}),
        (State("Suspended", "Suspended", "m"), {"Suspended"}),
        (State("Succeeded", "Succeeded", "m"), {"Ready", "Succeeded"}),
        (State("Failed", "Diverged", "m", stalled=True), {"Failed", "Stalled"}),
    ],
)
def test_what_holds_in_each_phase(state: State, expected: set[str]) -> None:
    status = status_of(state)
    assert holding(status) == expected
    assert status.phase == state.phase
    assert {condition.reason for condition in status.conditions} == {state.reason}


@settings(deadline=None)
@given(st.sampled_from(get_args(Phase)), st.booleans())
def test_kstatus_always_has_one_answer(phase: Phase, stalled: bool) -> None:
    stalled = stalled if phase not in ("Succeeded", "Failed") else phase == "Failed"
    holds = holding(status_of(State(phase, "Word", "m", stalled=stalled)))
    assert len(holds & {"Ready", "Reconciling", "Stalled"}) <= 1
    assert not holds >= {"Succeeded", "Failed"}
    assert ("Ready" in holds) == ("Succeeded" in holds)


def test_ready_says_why_even_when_it_does_not_hold_and_others_only_when_they_do() -> None:
    messages = {condition.type: condition.message for condition in status_of().conditions}
    assert messages["Ready"] == messages["Running"] == "attempt 1 is at work"
    assert messages["Failed"] == ""


def test_a_transition_time_is_kept_until_the_condition_turns() -> None:
    before = status_of()
    after = status_of(State("Succeeded", "Succeeded", "done"), before=before, now=LATER)
    since = {condition.type: condition.last_transition_time for condition in after.conditions}
    assert since["Ready"] == since["Succeeded"] == since["Reconciling"] == since["Running"] == LATER
    assert since["Failed"] == since["Suspended"] == NOON


@settings(deadline=None)
@given(st.sampled_from(get_args(Phase)), st.integers(min_value=1, max_value=5))
def test_where_nothing_changed_the_status_is_equal(phase: Phase, minutes: int) -> None:
    plan: dict[str, Any] = {"attempts": (FIRST,), "inputs": {"model": InputStatus(uri="pvc://a/b")}}
    state = State(phase, "Word", "m")
    told = progress(step=3, total_steps=10, metrics={"loss": 0.5})
    before = read_status(status_of(state, progress=told, **plan).to_json())
    before = read_status(status_of(state, progress=told, before=before, **plan).to_json())
    after = status_of(state, progress=told, before=before, now=NOON + timedelta(minutes=minutes), **plan)
    assert after.to_json() == before.to_json()


def test_the_generation_that_was_looked_at_is_told() -> None:
    status = next_status(Status(), Plan(RUNNING), None, generation=7, now=NOON)
    assert status.observed_generation == 7
    assert {condition.observed_generation for condition in status.conditions} == {7}


def test_what_a_plan_does_not_say_stays() -> None:
    inputs = {"model": InputStatus(uri="pvc://a/b")}
    before = status_of(attempts=(FIRST,), inputs=inputs, metrics={"loss": 1.0}, artifact=ARTIFACT)
    after = status_of(before=before, attempts=(FIRST,))
    assert (after.inputs, after.metrics, after.artifact) == (inputs, {"loss": 1.0}, ARTIFACT)


def test_times_of_the_whole_job() -> None:
    begun = status_of(attempts=(FIRST,))
    assert (begun.start_time, begun.completion_time) == (NOON, None)
    done = State("Succeeded", "Succeeded", "done")
    ended = status_of(done, before=begun, now=LATER, attempts=(FIRST,))
    assert (ended.start_time, ended.completion_time) == (NOON, LATER)
    assert status_of(done, before=ended, now=LATER + timedelta(1), attempts=(FIRST,)).completion_time == LATER


def test_a_job_began_with_its_first_attempt_even_when_that_is_no_longer_listed() -> None:
    second = Attempt(number=2, start_time=LATER)
    assert status_of(before=status_of(attempts=(FIRST,)), attempts=(second,)).start_time == NOON


def test_progress_is_told_with_the_figure_that_matters() -> None:
    told = progress(step=41, total_steps=1000, eta_seconds=59.6, metrics={"loss": 0.8312, "learningRate": 1e-4})
    shown = status_of(progress=told).progress
    assert shown is not None
    assert (shown.percent, shown.step, shown.eta_seconds, shown.headline) == (4, 41, 60, "loss 0.831")
    assert shown.updated_at == NOON


@pytest.mark.parametrize(
    ("metrics", "headline"),
    [
        ({"reward": 0.5, "loss": 1.0}, "reward 0.50"),
        ({"keptPercent": 33.3}, "kept 33%"),
        ({"uploadedPercent": 100.0}, "uploaded 100%"),
        ({"loss": 1e300}, "loss 1e+300"),
        ({"loss": -1e300}, "loss -1e+300"),
        ({"tokens": 3.0}, None),
    ],
)
def test_the_figure_that_matters(metrics: dict[str, float], headline: str | None) -> None:
    shown = status_of(progress=progress(metrics=metrics)).progress
    assert shown is not None
    assert shown.headline == headline


def test_a_moment_that_no_calendar_has_is_no_progress() -> None:
    with pytest.raises(ValidationError):
        Progress(phase="training", updated_at=1e20)


def test_progress_stays_when_nobody_answers_and_ends_at_all() -> None:
    before = status_of(progress=progress(step=41, total_steps=100, eta_seconds=9))
    assert status_of(before=before).progress == before.progress
    done = status_of(State("Succeeded", "Succeeded", "done"), before=before).progress
    assert done is not None
    assert (done.percent, done.eta_seconds) == (100, 0)


def test_an_invalid_object_is_stalled_but_may_go_on_once_it_is_mended() -> None:
    status = invalid_status(status_of(attempts=(FIRST,)), "spec.x: unknown field", generation=2, now=LATER)
    assert holding(status) == {"Stalled"}
    assert (status.phase, status.finished, status.attempts) == ("Failed", False, (FIRST,))
    ready = status.condition("Ready")
    assert ready is not None
    assert (ready.reason, ready.message) == ("InvalidSpec", "spec.x: unknown field")


def closed(*outcomes: Outcome) -> tuple[Attempt, ...]:
    return tuple(Attempt(number=n, start_time=NOON, end_time=NOON, outcome=o) for n, o in enumerate(outcomes, 1))


def written(status: Status) -> Status:
    """A status as it is read back; one that breaks a bound would be garbled and come back empty."""
    back = read_status(status.to_json())
    assert back == status
    assert back != Status()
    return back


def test_of_very_many_attempts_the_oldest_free_ones_are_left_out() -> None:
    free: list[Outcome] = ["Preempted"] * 252
    many = closed("Failed", "Preempted", "Lost", "Suspended", *free, "Failed")
    kept = [
        attempt.number
        for attempt in written(status_of(attempts=(*many, Attempt(number=258, start_time=NOON)))).attempts
    ]
    assert kept == [1, *range(4, 259)]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["Failed", "Preempted", "Lost", "Suspended"]), min_size=250, max_size=300))
def test_failures_stay_counted(outcomes: list[Outcome]) -> None:
    few: list[Outcome] = [o if o != "Failed" or n % 3 == 0 else "Lost" for n, o in enumerate(outcomes)]
    kept = status_of(attempts=closed(*few)).attempts
    assert len(kept) == min(len(few), 256)
    assert [a.outcome for a in kept].count("Failed") == few.count("Failed")
    assert [a.number for a in kept] == sorted(a.number for a in kept)
    assert kept[-1].number == len(few)


def test_long_messages_are_cut() -> None:
    long = "x" * 5000
    attempt = FIRST.model_copy(update={"message": long, "resumed_from": "c" * 300})
    status = written(status_of(State("Failed", "Broken", "y" * 40_000, stalled=True), attempts=(attempt,)))
    ready = status.condition("Ready")
    assert ready is not None
    assert ready.message == "y" * 4095 + "…"
    assert status.attempts[0].message == "x" * 4095 + "…"
    assert len(status.attempts[0].resumed_from or "") == 253


def test_a_long_list_of_problems_is_cut() -> None:
    status = written(invalid_status(Status(), "spec.x: unknown field; " * 5000, generation=1, now=NOON))
    ready = status.condition("Ready")
    assert ready is not None
    assert len(ready.message) == 4096


def test_of_too_many_figures_the_first_by_name_are_kept() -> None:
    figures = {f"m{number:03}": float(number) for number in reversed(range(100))}
    status = written(status_of(metrics=figures, progress=progress(metrics=figures)))
    assert status.progress is not None
    assert list(status.metrics) == list(status.progress.metrics) == [f"m{number:03}" for number in range(64)]
