"""Copies of the figures to W&B and TensorBoard, by a process beside the leading rank.

Libraries that track reach for the network, start processes and register what runs at exit; any of it can hang. So they
live in a process of their own that can be killed: the training hands it lines through a queue and never waits, apart
from a bounded time at the very end.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

from posttrain_contract.progress import SampleLine
from posttrain_contract.stage import FineTuneStage, RLStage
from posttrain_contract.tracking import Tracking
from posttrain_runtime.context import StageContext

log = logging.getLogger(__name__)

_WAITING_LINES: Final = 10_000
"""Lines that may wait for the process; further ones are lost."""
LAST_SECONDS: Final = 30.0
"""Time for the last lines after a run that succeeded."""
LAST_SECONDS_STOPPED: Final = 10.0
"""The same after one that did not: a pod that shall go has little time left."""


class Tracker:
    """Hands figures and samples on. No method raises or blocks, whatever happens to the other side."""

    def __init__(self, tracking: Tracking, context: StageContext[FineTuneStage] | StageContext[RLStage]) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue(_WAITING_LINES)
        self._lost = 0
        self._process = _start(context)
        self._thread = threading.Thread(target=self._feed, name="tracking", daemon=True)
        self._thread.start()
        self._put({"settings": _settings(tracking, context)})

    @property
    def lost(self) -> int:
        """Lines that did not get through to the process, or that it could not pass on."""
        return self._lost

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Passes the figures of a step on."""
        if figures:
            self._put({"step": step, "figures": dict(figures)})

    def samples(self, lines: Sequence[SampleLine]) -> None:
        """Passes the samples of one evaluation on, as a table of their own."""
        if lines:
            self._put({"step": lines[0].step, "samples": [line.dump() for line in lines]})

    def close(self, *, succeeded: bool) -> None:
        """Lets the last lines through, for a bounded time, and ends the process."""
        seconds = LAST_SECONDS if succeeded else LAST_SECONDS_STOPPED
        deadline = time.monotonic() + seconds
        self._put({"end": 0 if succeeded else 1}, until=deadline)
        self._put(None, until=deadline)
        status: int | None = None
        if self._process is not None:
            try:
                status = self._process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                log.warning("tracking did not end in %g s and was cut off; `wandb sync` sends what is missing", seconds)
            _kill_group(self._process)
        # Where the queue stayed full, the mark of its end was lost; now the thread empties it without waiting.
        self._put(None, until=time.monotonic() + 1.0)
        self._thread.join(1.0)
        if status != 0:
            self._lost = max(self._lost, 1)
        if self._lost:
            log.warning("figures were lost on their way to the trackers; the run's own history has all of them")

    def _put(self, message: Mapping[str, Any] | None, *, until: float = 0.0) -> None:
        """Hands a line over; where there is no room it is lost, or waits ``until`` then by the monotonic clock."""
        line = None if message is None else json.dumps(message).encode() + b"\n"
        left = until - time.monotonic()
        try:
            self._lines.put(line, block=left > 0, timeout=max(left, 0.0))
        except queue.Full:
            self._lost += 1

    def _feed(self) -> None:
        """The thread that may block. A process that ended takes no lines, and they count as lost."""
        pipe = None if self._process is None else self._process.stdin
        while (line := self._lines.get()) is not None:
            try:
                if pipe is None:
                    raise BrokenPipeError
                pipe.write(line)
                pipe.flush()
            except OSError:
                _close(pipe)
                pipe = None
                self._lost += 1
        _close(pipe)


def _start(context: StageContext[Any]) -> "subprocess.Popen[bytes] | None":
    places = dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"), str(context.scratch))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "posttrain_training.tracker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **places},
            start_new_session=True,  # it outlives a stop request to tell of it, and can be killed with its children
        )
    except OSError as error:
        log.warning("tracking could not be started: %s", error)
        return None


def _settings(tracking: Tracking, context: StageContext[Any]) -> dict[str, Any]:
    run = context.config.run
    return {
        "tracking": tracking.dump(),
        "folder": str(context.folder),
        # NAME-UID8: every attempt of one object has it, and a recreated object has another.
        "id": context.folder.name,
        "name": run.name,
        "run": run.id,
        "attempt": run.attempt,
        "spec": json.loads(context.config.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """It may have children of its own; W&B's is of another group, and ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _close(pipe: IO[bytes] | None) -> None:
    """A pipe that broke is closed by this as well, though it cannot pass its last bytes on."""
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()
