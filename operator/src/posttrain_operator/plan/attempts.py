"""The life of attempts: when one ended, how, and whether there is another."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from posttrain_contract.exit_codes import FIRST_RETRIABLE, ExitCode
from posttrain_contract.result import StageResult

from posttrain_operator.api.status import Attempt, Outcome
from posttrain_operator.labels import Reason, Role
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.pods import PodFacts, first_failure
from posttrain_operator.observe.workload import WorkloadState
from posttrain_operator.settings import Settings

FREE_OUTCOMES: tuple[Outcome, ...] = ("Preempted", "Suspended", "Lost")
"""Ends that cost no retry."""


@dataclass(frozen=True)
class End:
    """How an attempt ended."""

    outcome: Outcome
    retriable: bool
    reason: str
    message: str
    exit_code: int | None = None
    result: StageResult | None = None


def ended(facts: AttemptFacts) -> End | None:
    """How the attempt ended, or None while it has not."""
    workers = [pod for pod in facts.pods if pod.role != Role.SERVERS]
    if facts.state is WorkloadState.SUCCEEDED:
        return _success(workers)
    servers = [pod for pod in facts.pods if pod.role == Role.SERVERS]
    if (server := first_failure(servers)) is not None and not ExitCode.is_preemption(server.exit_code):
        # The trainer only sees that a server does not answer; the server knows why.
        return _failure(server)
    if facts.state is WorkloadState.FAILED:
        return _failure(first_failure(workers))
    return None


def lost() -> End:
    """The end of an attempt whose children are gone without a result."""
    return End("Lost", retriable=True, reason=Reason.CHILD_LOST, message="the attempt's pods are gone without a result")


def close(attempt: Attempt, end: End, now: datetime) -> Attempt:
    """The attempt's entry in the status once it ended."""
    resumed = end.result.resumed_from if end.result else None
    return attempt.model_copy(
        update={
            "end_time": now,
            "outcome": end.outcome,
            "exit_code": end.exit_code,
            "reason": end.reason,
            "message": end.message or None,
            "resumed_from": resumed,
        }
    )


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


def _success(pods: Sequence[PodFacts]) -> End:
    results = [pod.result for pod in pods if pod.result is not None and pod.result.outcome == "Succeeded"]
    published = [result for result in results if result.artifact is not None]
    if not published:
        message = "the pods ended well but told of no artifact; look at their logs"
        # Another attempt finds the artifact if it was published, and then only tells of it.
        return End("Failed", retriable=True, reason=Reason.NO_RESULT, message=message, exit_code=0)
    return End("Succeeded", retriable=False, reason=Reason.SUCCEEDED, message="", exit_code=0, result=published[0])


def _failure(pod: PodFacts | None) -> End:
    if pod is None:
        message = "the attempt failed and left no pod that says why; look at the events of its children"
        return End("Failed", retriable=True, reason=Reason.NO_RESULT, message=message)
    if pod.reason == "OOMKilled":
        message = f"{pod.name} was killed at its memory limit; raise run.resources.memory or lower the batch size"
        return End("Failed", retriable=False, reason=Reason.OUT_OF_MEMORY, message=message, exit_code=pod.exit_code)
    if pod.result is not None and pod.result.outcome != "Succeeded":
        code = pod.result.exit_code
        outcome: Outcome = "Preempted" if code.preempted else "Failed"
        reason = pod.result.reason or outcome
        return End(outcome, code.retriable, reason, pod.result.message, int(code), pod.result)
    return _untold(pod)


def _untold(pod: PodFacts) -> End:
    """The end of a pod that could not say why: from its exit status, when there is one."""
    if pod.disrupted or ExitCode.is_preemption(pod.exit_code):
        message = f"{pod.name} was stopped by the cluster: {pod.message or pod.reason or 'no reason given'}"
        return End("Preempted", retriable=True, reason=Reason.PREEMPTED, message=message, exit_code=pod.exit_code)
    if pod.exit_code is None:
        message = f"{pod.name} failed: {pod.message or pod.reason or 'no reason given'}"
        return End("Failed", retriable=True, reason=Reason.NO_RESULT, message=message)
    message = f"{pod.name} ended with status {pod.exit_code} and told no reason; look at its log"
    retriable = pod.exit_code >= FIRST_RETRIABLE
    return End("Failed", retriable=retriable, reason=Reason.NO_RESULT, message=message, exit_code=pod.exit_code)
