"""How an attempt ended, from the states of its children and what their pods left."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from posttrain_contract.exit_codes import FIRST_RETRIABLE, ExitCode
from posttrain_contract.result import StageResult

from posttrain_operator.api.status import Attempt, Outcome
from posttrain_operator.labels import Reason, Role
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.obstacles import cannot_run
from posttrain_operator.observe.pods import CONSEQUENCE, PodFacts, first_failure
from posttrain_operator.observe.workload import WorkloadState

_WORD: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
"""What may be a reason."""
_NO_REASON: Final = "no reason given"


@dataclass(frozen=True)
class End:
    """How an attempt ended."""

    outcome: Outcome
    retriable: bool
    reason: str
    message: str
    exit_code: int | None = None
    result: StageResult | None = None

    @property
    def from_absence(self) -> bool:
        """Whether it rests on something that nobody told, or told elsewhere: it may only not have been seen yet."""
        return self.reason in (Reason.NO_RESULT, Reason.CHILD_LOST, Reason.POD_REPLACED)


def ended(facts: AttemptFacts, attempt: Attempt | None = None) -> End | None:
    """How the attempt ended, or None while it has not. ``attempt`` is what is on record of it."""
    ran = attempt.running_time if attempt is not None else None
    if facts.state is WorkloadState.SUCCEEDED:
        return _success(facts.workers)
    ended_well = [pod for pod in facts.workers if not pod.failed]
    if facts.state is WorkloadState.FAILED and (done := _published(ended_well)) is not None:
        return done  # whoever failed beside it had nothing left to do
    servers = [pod for pod in facts.pods if pod.role == Role.SERVERS]
    if (server := first_failure(servers)) is not None and not ExitCode.is_preemption(server.exit_code):
        # The trainer only sees that a server does not answer; the server knows why.
        return _failure(server)
    if facts.state is WorkloadState.FAILED:
        return _failed(facts, servers, ran)
    suspended = facts.state is WorkloadState.SUSPENDED
    return None if suspended or facts.stopping else _broken(facts.gang, ran)


def lost() -> End:
    """The end of an attempt whose children are gone without a result."""
    return _free("Lost", Reason.CHILD_LOST, "the attempt's pods are gone without a result")


def _success(workers: Sequence[PodFacts]) -> End | None:
    if (done := _published(workers)) is not None:
        return done
    if any(pod.alive for pod in workers):
        return None
    message = "the pods ended well but told of no artifact; look at their logs"
    # Another attempt finds the artifact if it was published, and then only tells of it.
    return End("Failed", retriable=True, reason=Reason.NO_RESULT, message=message, exit_code=0)


def _published(workers: Sequence[PodFacts]) -> End | None:
    """The success of an attempt of which a pod tells that its artifact is there."""
    results = [pod.result for pod in workers if pod.result is not None and pod.result.outcome == "Succeeded"]
    published = [result for result in results if result.artifact is not None]
    if not published:
        return None
    told = published[0]
    return End("Succeeded", retriable=False, reason=Reason.SUCCEEDED, message=told.message, exit_code=0, result=told)


def _failed(facts: AttemptFacts, servers: Sequence[PodFacts], ran: datetime | None) -> End | None:
    """The end of an attempt whose main child failed.

    The one pod with a cause of its own decides at once. Pods that only tell that another one was lost decide when
    nobody is left who could tell more: nodes report in any order, and nothing can start before they have ended anyway.
    """
    culprit = first_failure(facts.workers)
    if culprit is not None and culprit.rank < CONSEQUENCE:
        taken = _taken_server(servers, ran) if culprit.exit_code == ExitCode.SERVER_LOST else None
        return _failure(culprit) if taken is None else _taken(taken)
    if (broken := _broken(facts.gang, ran)) is not None:
        return broken
    if (taken := next((pod for pod in facts.workers if pod.disrupted), None)) is not None:
        return _taken(taken)
    if any(pod.alive for pod in facts.workers):
        return None
    if culprit is None and ran is not None:
        # A pod that fails by itself stays; one that is not there was taken away.
        return _free("Lost", Reason.CHILD_LOST, "the attempt failed, and the pod that could say why is gone")
    return _failure(culprit)


def _broken(gang: Sequence[PodFacts], ran: datetime | None) -> End | None:
    """The end of a gang that ran and has lost a member, which its controller makes anew alone.

    A member that is being deleted counts while all the others are alive: siblings of a pod that ended are deleted as
    a matter of course. One that was made after all of them had run is new; of the same second, if it has not started.
    """
    if ran is None:
        return None
    leaving = [pod for pod in gang if pod.deleted or pod.disrupted]
    if leaving and all(pod.alive for pod in gang):
        pod = min(leaving, key=lambda pod: (not pod.disrupted, pod.name))
        if pod.disrupted:
            return _taken(pod)
        return _free("Preempted", Reason.POD_REPLACED, f"{pod.name} was deleted; the gang starts again whole")
    new = min((pod.name for pod in gang if _is_new(pod, ran)), default=None)
    if new is None:
        return None
    return _free("Preempted", Reason.POD_REPLACED, f"{new} was made anew alone; the gang starts again whole")


def _is_new(pod: PodFacts, ran: datetime) -> bool:
    if pod.created is None:
        return False
    return pod.created > ran or (pod.created == ran and pod.phase == "Pending")


def _taken_server(servers: Sequence[PodFacts], ran: datetime | None) -> PodFacts | None:
    """A rollout server that was taken away, or stands for one that was."""
    return next((pod for pod in servers if pod.disrupted or pod.deleted or (ran and _is_new(pod, ran))), None)


def _failure(pod: PodFacts | None) -> End:
    if pod is None:
        message = "the attempt failed and left no pod that says why; look at the events of its children"
        return End("Failed", retriable=True, reason=Reason.NO_RESULT, message=message)
    if pod.reason == "OOMKilled":
        message = f"{pod.name} was killed at its memory limit; {_less_memory(pod)}"
        return End("Failed", retriable=False, reason=Reason.OUT_OF_MEMORY, message=message, exit_code=pod.exit_code)
    if pod.evicted and not pod.disrupted:
        return _overuse(pod)
    if pod.result is not None and pod.result.outcome != "Succeeded":
        return _told(pod.result)
    return _taken(pod) if pod.disrupted else _untold(pod)


def _told(result: StageResult) -> End:
    code = result.exit_code
    outcome: Outcome = "Preempted" if code.preempted else "Failed"
    reason = result.reason if _WORD.fullmatch(result.reason) else outcome
    return End(outcome, code.retriable, reason, result.message, int(code), result)


def _overuse(pod: PodFacts) -> End:
    """The end of a pod that was evicted for what it used itself: memory for /dev/shm, or scratch space."""
    if '"shm"' in pod.message:
        message = f"{pod.name} used more of /dev/shm than it may: {pod.message}; raise run.resources.shm"
        return End("Failed", retriable=False, reason=Reason.OUT_OF_MEMORY, message=message, exit_code=pod.exit_code)
    message = f"{pod.name} used more scratch space than it may: {pod.message or _NO_REASON}"
    return End("Failed", retriable=True, reason=Reason.SCRATCH_EXCEEDED, message=message, exit_code=pod.exit_code)


def _taken(pod: PodFacts) -> End:
    """The end by a pod that the cluster took away."""
    message = f"{pod.name} was taken away by the cluster: {pod.message or pod.reason or _NO_REASON}"
    if pod.evicted and "memory" in pod.message:
        message += "; raise run.resources.memory, so that a node takes fewer pods"
    return _free("Preempted", Reason.PREEMPTED, message, pod.exit_code)


def _untold(pod: PodFacts) -> End:
    """The end of a pod that could not say why: from its exit status, when there is one."""
    if ExitCode.is_preemption(pod.exit_code):
        message = f"{pod.name} was stopped: {pod.message or pod.reason or _NO_REASON}"
        return _free("Preempted", Reason.PREEMPTED, message, pod.exit_code)
    if pod.exit_code is None and pod.failed_init is not None:
        message = f"{pod.name} gave up: its init container {pod.failed_init} failed before its peers had started"
        return _free("Lost", Reason.GANG_INCOMPLETE, message)
    if pod.exit_code is None:
        message = f"{pod.name} failed: {pod.message or pod.reason or _NO_REASON}"
        return End("Failed", retriable=True, reason=Reason.NO_RESULT, message=message)
    retriable = pod.exit_code >= FIRST_RETRIABLE
    if cannot_run(pod.reason):
        message = f"{pod.name} could not be started: {pod.answer or _NO_REASON}; check run.image"
        return End("Failed", retriable, Reason.CONTAINER_CANNOT_RUN, message, pod.exit_code)
    message = f"{pod.name} ended with status {pod.exit_code} and told no reason; look at its log"
    return End("Failed", retriable, Reason.NO_RESULT, message, pod.exit_code)


def _less_memory(pod: PodFacts) -> str:
    if pod.role == Role.SERVERS:
        return "raise run.resources.memory, or lower rollout.cacheMemoryMi or rollout.maxSequences"
    return "raise run.resources.memory or lower the batch size"


def _free(outcome: Outcome, reason: Reason, message: str, exit_code: int | None = None) -> End:
    """An end that costs no retry."""
    return End(outcome, retriable=True, reason=reason, message=message, exit_code=exit_code)
