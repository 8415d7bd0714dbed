"""Status as a pure function: what was said before, the plan of this pass, and what the stage tells."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.metrics import KEPT_PERCENT, LOSS, REWARD, UPLOADED_PERCENT
from posttrain_contract.progress import Progress

from posttrain_operator.api.status import (
    MAX_ATTEMPTS,
    MAX_INT,
    MAX_METRICS,
    MAX_NAME,
    MAX_TEXT,
    MAX_WORD,
    Attempt,
    Condition,
    InputStatus,
    ProgressStatus,
    Status,
)
from posttrain_operator.labels import Reason
from posttrain_operator.plan.attempts import FREE_OUTCOMES
from posttrain_operator.plan.types import Admission, Plan, State

_HEADLINES = (
    (REWARD, "reward", "{:.2f}"),
    (LOSS, "loss", "{:.3f}"),
    (KEPT_PERCENT, "kept", "{:.0f}%"),
    (UPLOADED_PERCENT, "uploaded", "{:.0f}%"),
)
"""The figure that matters, by what the stage reports: (metric, word, format)."""
_MAX_FIGURE = 12
"""Characters of a figure; a larger number is written with an exponent."""


def next_status(before: Status, plan: Plan, progress: Progress | None, *, generation: int, now: datetime) -> Status:
    """The status after this pass; equal to ``before`` when nothing changed."""
    state = plan.state
    finished = state.phase in ("Succeeded", "Failed")
    start_time = before.start_time or (plan.attempts[0].start_time if plan.attempts else None)
    return Status(
        observed_generation=generation,
        phase=state.phase,
        conditions=(
            *_conditions(before, state, generation=generation, now=now),
            *_admitted(before, plan.admission, generation=generation, now=now),
        ),
        inputs=_inputs(before, plan, progress),
        attempts=_bounded_attempts(plan.attempts),
        progress=_progress(_of_same_attempt(before, plan), progress, state),
        metrics=before.metrics if plan.metrics is None else _bounded_metrics(plan.metrics),
        artifact=before.artifact if plan.artifact is None else _bounded_artifact(plan.artifact),
        start_time=start_time,
        completion_time=(before.completion_time or _not_before(start_time, now)) if finished else None,
        gpu_seconds=_gpu_seconds(before, plan.attempts, now),
    )


def invalid_status(before: Status, message: str, *, generation: int, now: datetime) -> Status:
    """The status of an object that cannot be worked on as it is."""
    state = State("Failed", Reason.INVALID_SPEC, message, stalled=True)
    conditions = _conditions(before, state, generation=generation, now=now, terminal=False)
    return before.model_copy(update={"observed_generation": generation, "phase": "Failed", "conditions": conditions})


def defect_status(before: Status, message: str, *, generation: int, now: datetime) -> Status:
    """The status after a pass that ended with a defect of ours: how things stand is not known."""
    state = State("Pending", Reason.INTERNAL_ERROR, message)
    old = before.condition("Ready")
    since = old.last_transition_time if old is not None and old.status == "Unknown" else now
    told = before.conditions or _conditions(before, state, generation=generation, now=now)
    others = tuple(condition for condition in told if condition.type != "Ready")
    ready = _condition(before, "Ready", state, holds=False, generation=generation, now=now)
    ready = ready.model_copy(update={"status": "Unknown", "last_transition_time": since})
    return before.model_copy(update={"phase": before.phase or "Pending", "conditions": (ready, *others)})


def seen_status(before: Status, *, generation: int) -> Status:
    """The status of a finished object whose ``run`` was edited: looked at, and nothing changes."""
    conditions = tuple(c.model_copy(update={"observed_generation": generation}) for c in before.conditions)
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _conditions(
    before: Status, state: State, *, generation: int, now: datetime, terminal: bool = True
) -> tuple[Condition, ...]:
    """Every condition in kstatus' meaning: Ready is derived, Reconciling and Stalled are true when abnormal."""
    succeeded = state.phase == "Succeeded"
    failed = state.phase == "Failed" and terminal
    at_work = not (succeeded or state.phase in ("Failed", "Suspended") or state.stalled)
    holding: Mapping[str, bool] = {
        "Ready": succeeded,
        "Reconciling": at_work,
        "Stalled": state.stalled,
        "Running": state.phase == "Running",
        "Succeeded": succeeded,
        "Failed": failed,
        "Suspended": state.phase == "Suspended",
    }
    return tuple(
        _condition(before, kind, state, holds=holds, generation=generation, now=now) for kind, holds in holding.items()
    )


def _condition(before: Status, kind: str, state: State, *, holds: bool, generation: int, now: datetime) -> Condition:
    old = before.condition(kind)
    status: Literal["True", "False"] = "True" if holds else "False"
    since = old.last_transition_time if old is not None and old.status == status else now
    return Condition(
        type=kind,
        status=status,
        reason=state.reason,
        message=_bounded(state.message, MAX_TEXT) if holds or kind == "Ready" else "",
        last_transition_time=since,
        observed_generation=generation,
    )


def _admitted(before: Status, admission: Admission | None, *, generation: int, now: datetime) -> tuple[Condition, ...]:
    """The condition Admitted, which has a reason of its own; there is none without a queue."""
    if admission is None:
        return ()
    said = State("Queued", admission.reason, admission.message)
    condition = _condition(before, "Admitted", said, holds=admission.holds, generation=generation, now=now)
    return (condition.model_copy(update={"message": _bounded(admission.message, MAX_TEXT)}),)


def _inputs(before: Status, plan: Plan, progress: Progress | None) -> dict[str, InputStatus]:
    """The inputs, with the commits that any attempt has told of; the first one decides."""
    told = {**plan.revisions, **(progress.revisions if progress is not None else {})}
    told |= {name: known.revision for name, known in before.inputs.items() if known.revision is not None}
    inputs = before.inputs if plan.inputs is None else plan.inputs
    return {name: item.model_copy(update={"revision": told.get(name)}) for name, item in inputs.items()}


def _of_same_attempt(before: Status, plan: Plan) -> ProgressStatus | None:
    """What was said of the progress, unless a new attempt begins: that is at none."""
    old, new = (attempts[-1].number if attempts else 0 for attempts in (before.attempts, plan.attempts))
    return before.progress if old == new else None


def _progress(before: ProgressStatus | None, progress: Progress | None, state: State) -> ProgressStatus | None:
    if state.phase == "Succeeded" and before is not None:
        return before.model_copy(update={"percent": 100, "eta_seconds": 0})
    if progress is None:
        return before
    return ProgressStatus(
        phase=_printable(progress.phase),
        percent=None if progress.percent is None else int(progress.percent),
        step=progress.step,
        total_steps=progress.total_steps,
        eta_seconds=None if progress.eta_seconds is None else round(progress.eta_seconds),
        headline=_headline(progress.metrics),
        metrics=_bounded_metrics(progress.metrics),
        updated_at=datetime.fromtimestamp(progress.updated_at, tz=UTC).replace(microsecond=0),
    )


def _headline(metrics: Mapping[str, float]) -> str | None:
    for name, word, form in _HEADLINES:
        if name in metrics:
            shown = form.format(metrics[name])
            return f"{word} {shown}" if len(shown) <= _MAX_FIGURE else f"{word} {metrics[name]:.3g}"
    return None


def _not_before(start: datetime | None, now: datetime) -> datetime:
    """Now, unless the clock was ahead when the job began."""
    return now if start is None else max(start, now)


def _gpu_seconds(before: Status, attempts: Sequence[Attempt], now: datetime) -> int | None:
    """The GPU-seconds of what has ended: a sum that grows only where an attempt ends, or is suspended by its queue.

    Of an attempt under way nothing is in it, so that it never brings a write of its own: the cost of that is the time
    since its ``runningTime`` times its ``gpus``. Attempts that are no longer listed stay counted.
    """
    known = {attempt.number: attempt for attempt in before.attempts}
    spent, ended = before.gpu_seconds or 0, False
    for attempt in attempts:
        old = known.get(attempt.number, attempt)
        if attempt.end_time is not None and (old.end_time is None or attempt.number not in known):
            spent, ended = spent + attempt.gpu_seconds(attempt.end_time), True
        elif old.running_time is not None and attempt.running_time is None:
            spent, ended = spent + old.gpu_seconds(now), True
    return min(spent, MAX_INT) if ended else before.gpu_seconds


def _bounded(text: str, limit: int) -> str:
    return _printable(text if len(text) <= limit else f"{text[: limit - 1]}…")


def _printable(text: str) -> str:
    """A text without halves of characters, which no JSON can carry."""
    return text.encode(errors="replace").decode()


def _bounded_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    named = {_printable(name): value for name, value in metrics.items() if len(name) <= MAX_NAME}
    return dict(sorted(named.items())[:MAX_METRICS])


def _bounded_artifact(artifact: ArtifactSummary) -> ArtifactSummary:
    figures = {"bytes": artifact.bytes, "rows": artifact.rows, "parameters": artifact.parameters}
    return artifact.model_copy(
        update={name: min(value, MAX_INT) for name, value in figures.items() if value is not None}
    )


def _bounded_attempts(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """What a status has room for: the oldest attempts that cost no retry go first, failures stay counted."""
    free = [attempt.number for attempt in attempts if attempt.outcome in FREE_OUTCOMES]
    dropped = set(free[: max(0, len(attempts) - MAX_ATTEMPTS)])
    return tuple(_bounded_attempt(attempt) for attempt in attempts if attempt.number not in dropped)


def _bounded_attempt(attempt: Attempt) -> Attempt:
    message, checkpoint = attempt.message, attempt.resumed_from
    return attempt.model_copy(
        update={
            "message": message and _bounded(message, MAX_TEXT),
            "resumed_from": checkpoint and _bounded(checkpoint, MAX_WORD),
        }
    )
