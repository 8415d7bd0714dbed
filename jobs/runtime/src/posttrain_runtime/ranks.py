"""Training processes: the supervisor's side (start, stop, find the cause) and the rank's side (report the end).

torchrun always exits with 1, whatever a rank did, so each rank writes how it ended to ``rank-N.json``; the first
failure in time is the cause, because the others die of it.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posttrain_contract import layout, stage
from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import FIRST_RETRIABLE, ExitCode
from pydantic import Field, ValidationError

from posttrain_runtime import logs, stalls
from posttrain_runtime.context import Finished, StageContext, mount_root
from posttrain_runtime.errors import Preempted, StageError, classify
from posttrain_runtime.files import write_atomically
from posttrain_runtime.progress import ProgressReporter
from posttrain_runtime.store import Staged

log = logging.getLogger(__name__)

_POLL = 0.05
_LAUNCHER_SECONDS = 10
"""How long torchrun may take to see that its processes are gone."""


class RankOutcome(Model):
    """How one training process ended."""

    rank: int
    time: float
    exit_code: ExitCode
    reason: str = ""
    message: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    staged: ArtifactType | None = None
    parameters: int | None = None
    step: int | None = None
    resumed_from: str | None = None


def world_size() -> int:
    """Processes of the gang, from what the training operator injects; 1 where it injected nothing."""
    return int(os.environ.get("PET_NNODES", "1")) * int(os.environ.get("PET_NPROC_PER_NODE", "1"))


def rank_command(module: str, context: StageContext[Any]) -> list[str]:
    """The command that starts this pod's training processes.

    torchrun reads PET_* itself. A gang of one needs no rendezvous, so its process is started directly.
    """
    launcher = [] if world_size() == 1 else ["-m", "torch.distributed.run", "--max-restarts", "0"]
    arguments = ["--config", str(context.config_path), "--scratch", str(context.scratch)]
    return [sys.executable, *launcher, "-m", module, *arguments]


def run_ranks(
    module: str, context: StageContext[Any], *, patience: float, least_step: float = stalls.LEAST_STEP_SECONDS
) -> Finished:
    """Runs the training processes of this pod to their end.

    On a stop request they get SIGTERM once; the kubelet's grace period bounds how long they may save. Processes that
    hang are ended: see ``stalls.Watch``, which explains ``patience`` and ``least_step``, in seconds. Raises
    ``StageError`` with the cause of the first rank that failed, or ``Preempted``.
    """
    if os.environ.get("PET_NODE_RANK", "0") == "0":
        context.progress.record(
            0, {"attempt": context.config.run.attempt}
        )  # the history begins with the first of these
    process = subprocess.Popen(rank_command(module, context), env=_environment())  # noqa: S603 - our own module
    asked = False
    watch = stalls.Watch(context.scratch, patience=patience, least_step=least_step)
    while (status := process.poll()) is None:
        if context.stop.is_set() and not asked:
            asked = True
            log.info("asked to stop: telling the training processes")
            process.send_signal(signal.SIGTERM)
        watch.look()
        if watch.bereaved:
            stalls.end_ranks(context.scratch)
        elif (told := watch.stalled) is not None:
            failure = _end_stalled(process, context, told)
            raise Preempted(saved=False) if asked else failure
        time.sleep(_POLL)
    outcomes = _read_outcomes(context.scratch)
    return _conclude(outcomes, status, asked=asked, staging=context.staging)


def _environment() -> dict[str, str]:
    """What the training processes find in their environment.

    How long they may save after a SIGTERM comes from the operator, who knows the grace period; without one it is five
    minutes, since torchrun's own 30 s suffice for small models only.
    A single process sees one GPU, also where its pod has more for a rollout server: of several, transformers would take
    all and give each a batch, which TRL refuses.
    """
    environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300", **os.environ}
    if world_size() == 1:
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return environment


def _end_stalled(process: "subprocess.Popen[bytes]", context: StageContext[Any], told: str) -> StageError:
    """Saves the stacks of processes that hang and ends them. Other pods notice that they are gone, if not the stall."""
    target = stalls.stacks_file(
        context.folder, attempt=context.config.run.attempt, node=os.environ.get("PET_NODE_RANK", "0")
    )
    answers = stalls.save_stacks(context.scratch, target)
    stalls.end_ranks(context.scratch)
    try:
        process.wait(timeout=_LAUNCHER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return StageError(
        ExitCode.PEER_LOST,
        "Stalled",
        f"the training processes hang: {told}; {answers}; their stacks are in {layout.LOGS}/{target.name}; raise "
        "training.stallTimeout if they only needed longer",
    )


def _conclude(outcomes: Sequence[RankOutcome], status: int, *, asked: bool, staging: Path) -> Finished:
    failures = sorted((o for o in outcomes if o.exit_code is not ExitCode.DONE), key=lambda o: o.time)
    stopped = [o for o in failures if o.exit_code.preempted]
    causes = [o for o in failures if not o.exit_code.preempted and o.exit_code is not ExitCode.PEER_LOST] or [
        o for o in failures if not o.exit_code.preempted
    ]
    if causes and not (asked and stopped):
        raise StageError(causes[0].exit_code, causes[0].reason, causes[0].message)
    if stopped:
        raise Preempted(saved=stopped[0].exit_code is ExitCode.PREEMPTED, step=stopped[0].step)
    if asked and status != 0:
        raise Preempted(saved=False)
    if status != 0 or not outcomes:
        raise _died(status)
    leader = min(outcomes, key=lambda o: o.rank)
    staged = None
    if leader.rank == 0 and leader.staged is not None:
        staged = Staged(staging, leader.staged, parameters=leader.parameters)
    return Finished(leader.metrics, staged, leader.resumed_from, leader.message)


def _died(status: int) -> StageError:
    """The error for processes that ended without a word; 128 + signal, as shells count.

    Of a gang only torchrun's own status is known, which is 1 whatever happened, so it counts as killed; but a single
    process that ends by itself has failed before it could report, and will do so again.
    """
    number = 128 - status if status < 0 else status
    if number < FIRST_RETRIABLE and world_size() == 1:
        return StageError(
            ExitCode.UNHANDLED,
            "ProcessFailed",
            f"the training process ended with status {status} before it could tell a reason; its log says more",
        )
    code = ExitCode(number) if number in (ExitCode.ABORTED, ExitCode.KILLED, ExitCode.SEGFAULT) else ExitCode.KILLED
    return StageError(
        code,
        "ProcessDied",
        f"a training process ended without a result (status {status}); with status -9 look for the memory limit",
    )


def _read_outcomes(scratch: Path) -> list[RankOutcome]:
    outcomes = []
    for path in sorted(scratch.glob("rank-*.json")):
        try:
            outcomes.append(RankOutcome.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            log.warning("%s cannot be read: %s", path.name, error)
    return outcomes


def run_rank(work: Callable[[StageContext[Any]], RankOutcome], argv: Sequence[str] | None = None) -> int:
    """The main function of a training process: runs ``work``, writes how it ended, returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args(argv)
    config = stage.load(arguments.config)
    rank = int(os.environ.get("RANK", "0")) if world_size() > 1 else 0
    logs.configure(run=config.run.id, attempt=config.run.attempt)
    logging.getLogger().setLevel(logging.INFO if rank == 0 else logging.WARNING)
    history = mount_root(arguments.config) / config.run.folder / layout.METRICS
    progress = ProgressReporter(
        arguments.scratch / ("progress.json" if rank == 0 else f"progress-{rank}.json"),
        history=history,
    )
    context = StageContext(config=config, config_path=arguments.config, scratch=arguments.scratch, progress=progress)
    progress.revisions = {name: pin.revision for name, pin in context.pins.items()}
    signal.signal(signal.SIGTERM, lambda *_: context.stop.set())
    stalls.answer_with_stacks(arguments.scratch, rank)
    outcome = _guarded(work, context, rank)
    write_atomically(arguments.scratch / f"rank-{rank}.json", outcome.model_dump_json(by_alias=True).encode())
    return int(outcome.exit_code)


def _guarded(work: Callable[[StageContext[Any]], RankOutcome], context: StageContext[Any], rank: int) -> RankOutcome:
    try:
        return work(context)
    except Preempted as stopped:
        return RankOutcome(
            rank=rank,
            time=time.time(),
            exit_code=stopped.code,
            reason="Preempted",
            message=str(stopped),
            step=stopped.step,
        )
    except Exception as error:  # the boundary: whatever happens becomes an outcome with a cause
        failure = classify(error)
        if failure.code is ExitCode.UNHANDLED:
            log.exception("rank %d failed", rank)
        return RankOutcome(
            rank=rank,
            time=time.time(),
            exit_code=failure.code,
            reason=failure.reason,
            message=logs.redact(failure.message),
        )
