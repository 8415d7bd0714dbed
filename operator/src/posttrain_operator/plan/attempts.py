"""The life of attempts on record: opened, running, ended, what an end costs, and when there is another."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from posttrain_operator.api.status import Attempt, Outcome
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.workload import WorkloadState
from posttrain_operator.plan.ending import End
from posttrain_operator.settings import Settings

FREE_OUTCOMES: tuple[Outcome, ...] = ("Preempted", "Suspended", "Lost", "Released")
"""Ends that cost no retry."""


def opened(history: tuple[Attempt, ...], number: int, now: datetime) -> tuple[Attempt, ...]:
    """The history with the attempt of a number at its end."""
    if history and history[-1].number == number:
        return history
    return (*history, Attempt(number=number, start_time=now))


def observed(history: tuple[Attempt, ...], facts: AttemptFacts | None, now: datetime) -> tuple[Attempt, ...]:
    """The history with what the present attempt's children tell of it: since when it runs, and with how many GPUs.

    One that its queue has suspended runs no more; when it does again, that is another time.
    """
    if facts is None:
        return history
    last = history[-1]
    if last.running_time is None and facts.at_work:
        told = {"running_time": facts.ran_since(now), "gpus": facts.gpus}
    elif last.running_time is not None and facts.state is WorkloadState.SUSPENDED:
        told = {"running_time": None}
    else:
        return history
    return (*history[:-1], last.model_copy(update=told))


def closed(
    history: tuple[Attempt, ...], end: End, now: datetime, facts: AttemptFacts | None = None
) -> tuple[Attempt, ...]:
    """The history with the last attempt ended; of one that nobody saw running, ``facts`` may tell that it did."""
    last, result = history[-1], end.result
    told: dict[str, object] = {
        "end_time": max(now, last.start_time),
        "outcome": end.outcome,
        "exit_code": end.exit_code,
        "reason": end.reason,
        "message": end.message or None,
        "resumed_from": result.resumed_from if result is not None else None,
    }
    if last.running_time is None and facts is not None and (since := facts.ran_since()) is not None:
        told |= {"running_time": since, "gpus": facts.gpus}
    return (*history[:-1], last.model_copy(update=told))


def failures(attempts: Sequence[Attempt]) -> int:
    """Attempts that count against ``run.retries``."""
    return sum(1 for attempt in attempts if attempt.outcome == "Failed")


def backoff(attempts: Sequence[Attempt], settings: Settings) -> timedelta:
    """The pause before the next attempt: none after a preemption, else doubling with every failure.

    Lost children cost no retry but a pause, lest whoever deletes them and this loop chase each other.
    """
    if not attempts or attempts[-1].outcome in ("Preempted", "Suspended"):
        return timedelta()
    doublings = min(max(failures(attempts) - 1, 0), 20)
    pause: timedelta = settings.first_backoff * 2**doublings
    return min(pause, settings.longest_backoff)
