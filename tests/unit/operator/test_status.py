"""Status: conditions in kstatus' meaning, equal when nothing changed, and always within its bounds."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_contract.progress import Progress
from posttrain_operator.api.status import MAX_INT, Attempt, InputStatus, Outcome, Phase, Status, read_status
from posttrain_operator.plan.types import Plan, State
from posttrain_operator.status import invalid_status, next_status
from pydantic import ValidationError
from support.scene import ARTIFACT

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
RUNNING = State("Running", "Running", "attempt 1 is at work")
COMMIT = "a" * 40
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


class TestCosts:
    RAN = FIRST.model_copy(update={"running_time": NOON, "gpus": 8})

    def test_they_are_told_when_an_attempt_ends_and_not_before(self) -> None:
        begun = status_of(attempts=(FIRST,))
        running = status_of(before=begun, attempts=(self.RAN,))
        assert running.gpu_seconds is None
        end = self.RAN.model_copy(update={"end_time": NOON + timedelta(seconds=30), "outcome": "Failed"})
        ended = status_of(before=running, attempts=(end,), now=LATER)
        assert ended.gpu_seconds == 240
        second = self.RAN.model_copy(update={"number": 2})
        again = status_of(before=ended, attempts=(end, second), now=LATER)
        assert again.gpu_seconds == 240
        both = (end, end.model_copy(update={"number": 2}))
        assert status_of(before=again, attempts=both, now=LATER).gpu_seconds == 480

    def test_an_attempt_that_begins_and_ends_in_one_pass_counts(self) -> None:
        end = self.RAN.model_copy(update={"end_time": LATER, "outcome": "Failed"})
        assert status_of(before=status_of(), attempts=(end,)).gpu_seconds == 8 * 300

    def test_time_that_a_queue_suspends_an_attempt_does_not_count(self) -> None:
        running = status_of(before=status_of(attempts=(FIRST,)), attempts=(self.RAN,))
        waiting = self.RAN.model_copy(update={"running_time": None})
        suspended = status_of(before=running, attempts=(waiting,), now=LATER)
        assert suspended.gpu_seconds == 8 * 300
        again = self.RAN.model_copy(update={"running_time": LATER + timedelta(hours=1)})
        resumed = status_of(before=suspended, attempts=(again,), now=LATER + timedelta(hours=1))
        assert resumed.gpu_seconds == 8 * 300
        end = again.model_copy(update={"end_time": LATER + timedelta(hours=2), "outcome": "Succeeded"})
        assert status_of(before=resumed, attempts=(end,), now=LATER).gpu_seconds == 8 * 3900

    def test_they_outlive_the_attempts_that_are_no_longer_listed(self) -> None:
        many = tuple(
            Attempt(number=n, start_time=NOON, running_time=NOON, gpus=1, end_time=LATER, outcome="Preempted")
            for n in range(1, 258)
        )
        first = status_of(attempts=many)
        assert first.gpu_seconds == 257 * 300
        assert status_of(before=first, attempts=first.attempts).gpu_seconds == 257 * 300

    def test_they_fit_into_what_the_api_server_takes(self) -> None:
        end = self.RAN.model_copy(update={"gpus": 2**52, "end_time": LATER, "outcome": "Failed"})
        assert written(status_of(attempts=(end,))).gpu_seconds == MAX_INT


class TestWhatStagesSay:
    def test_the_largest_numbers_fit_into_what_the_api_server_takes(self) -> None:
        told = progress(step=MAX_INT, total_steps=MAX_INT, eta_seconds=MAX_INT)
        shown = written(status_of(progress=told)).progress
        assert shown is not None
        assert (shown.percent, shown.step, shown.total_steps, shown.eta_seconds) == (100, *[MAX_INT] * 3)

    @pytest.mark.parametrize("field", ["step", "total_steps", "eta_seconds"])
    def test_larger_ones_are_no_progress(self, field: str) -> None:
        with pytest.raises(ValidationError):
            progress(**{field: MAX_INT + 1})

    def test_an_artifact_that_no_disk_holds_is_told_as_the_largest_there_is(self) -> None:
        artifact = ARTIFACT.model_copy(update={"bytes": 10**30, "parameters": 10**30})
        told = written(status_of(State("Succeeded", "Succeeded", "done"), artifact=artifact)).artifact
        assert told is not None
        assert (told.bytes, told.rows, told.parameters) == (MAX_INT, None, MAX_INT)

    def test_a_figure_without_end_in_its_name_is_left_out(self) -> None:
        figures = {"loss": 0.5, "x" * 65: 1.0}
        status = written(status_of(metrics=figures, progress=progress(metrics=figures)))
        assert status.progress is not None
        assert status.metrics == status.progress.metrics == {"loss": 0.5}

    def test_half_a_character_is_no_reason_to_stop(self) -> None:
        attempt = FIRST.model_copy(update={"message": "lost \ud83d half"})
        told = progress(step=1, metrics={"lo\udc00ss": 1.0}).model_copy(update={"phase": "tra\ud800ining"})
        status = status_of(
            State("Failed", "Broken", "lost \ud83d half", stalled=True), attempts=(attempt,), progress=told
        )
        assert json.loads(json.dumps(status.to_json()).encode()) == status.to_json()
        assert json.dumps(status.to_json(), ensure_ascii=False).encode()
        ready = status.condition("Ready")
        assert ready is not None
        assert ready.message == "lost ? half"


def test_a_job_ends_no_earlier_than_it_began() -> None:
    done = State("Succeeded", "Succeeded", "done")
    begun = status_of(attempts=(FIRST,))
    assert status_of(done, before=begun, now=NOON - timedelta(days=1), attempts=(FIRST,)).completion_time == NOON


READABLE = Status(
    observed_generation=3,
    phase="Succeeded",
    conditions=status_of(State("Succeeded", "Succeeded", "done")).conditions,
    attempts=closed("Failed", "Succeeded"),
    artifact=ARTIFACT,
    start_time=NOON,
)


class TestReading:
    """A status that somebody else wrote into costs no more than what is garbled."""

    @pytest.mark.parametrize("field", ["phase", "progress", "metrics", "inputs", "startTime", "gpuSeconds", "artifact"])
    def test_one_wrong_field_costs_that_field(self, field: str) -> None:
        found = read_status({**READABLE.to_json(), field: "garbled"})
        assert found.finished
        assert found.attempts == READABLE.attempts

    def test_one_wrong_entry_costs_that_entry(self) -> None:
        told = READABLE.to_json()
        told["conditions"][0] = {"type": "Ready", "status": "Perhaps"}
        told["attempts"][0] = "first"
        found = read_status(told)
        assert found.holds("Succeeded")
        assert found.condition("Ready") is None
        assert [attempt.number for attempt in found.attempts] == [2]

    def test_what_a_newer_release_says_is_passed_over(self) -> None:
        told = READABLE.to_json()
        told["mood"] = "fine"
        told["attempts"][0]["mood"] = "sad"
        told["conditions"][0]["mood"] = "sad"
        assert read_status(told) == READABLE

    def test_more_entries_than_a_status_has_room_for_count_as_garbled(self) -> None:
        assert (
            read_status({"attempts": [READABLE.to_json()["attempts"][0]] * 300, "phase": "Running"}).phase == "Running"
        )

    @settings(deadline=None, max_examples=60)
    @given(
        st.dictionaries(
            st.sampled_from(sorted(READABLE.to_json())),
            st.recursive(st.none() | st.text(max_size=3) | st.integers(), lambda inner: st.lists(inner, max_size=2)),
        )
    )
    def test_whatever_stands_there_something_is_read(self, garbage: dict[str, Any]) -> None:
        found = read_status({**READABLE.to_json(), **garbage})
        assert found.finished or "conditions" in garbage


def test_the_commit_of_an_input_is_told_once_it_is_known_and_stays() -> None:
    inputs = {"model": InputStatus(uri="hf://acme/base"), "dataset": InputStatus(uri="pvc://data/rows")}
    before = status_of(inputs=inputs, progress=progress(revisions={"model": COMMIT}))
    assert before.inputs["model"].revision == COMMIT
    assert before.inputs["dataset"].revision is None
    after = status_of(before=before, inputs=inputs, progress=progress(revisions={"model": "b" * 40, "other": COMMIT}))
    assert after.inputs == before.inputs


def test_the_commit_is_told_by_a_stage_that_ended_before_it_was_asked() -> None:
    done = State("Succeeded", "Succeeded", "m")
    status = status_of(
        done, before=Status(inputs={"model": InputStatus(uri="hf://acme/base")}), revisions={"model": COMMIT}
    )
    assert status.inputs["model"].revision == COMMIT
