"""Training processes that hang or are alone: how the supervisor notices, and what it saves before it ends them.

Every rank tells of its progress in a file (``ProgressReporter``), and that is its heartbeat: between optimizer steps
the step must grow, in other phases anything new counts. A rank waits for the others in every step, so one that hangs
makes all of them silent; and as long as one of a pod's ranks gets on, none of them has stalled.
"""

import contextlib
import faulthandler
import json
import os
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import TRAINING, Progress

from posttrain_runtime.files import write_atomically
from posttrain_runtime.progress import read_progress

_LOOK_SECONDS: Final = 0.25
_AWAKE_SECONDS: Final = 5.0
"""So late may a look be because others are at work; if it is later, the machine slept, and the rest does not count."""
_FEWEST_STEPS: Final = 3
"""The first steps compile and fill caches; a hang counts by the median from then on."""
_REMEMBERED: Final = 100
_SLOWER: Final = 10
"""So many times the median step may one step take."""
LEAST_STEP_SECONDS: Final = 60.0
"""What a step may take that depends on nobody outside the gang."""
_STACK_SECONDS: Final = 5.0
"""A process that gets the signal writes its stacks at once, whatever it does."""
_MOURNING_SECONDS: Final = 10.0
"""How long the others may take to notice by themselves that a rank is gone; NCCL lets them wait for minutes."""
_PROGRESS: Final = "progress*.json"
_STACKS: Final = "stacks-{rank}-{process}.txt"


def saving_file(scratch: Path, rank: int) -> Path:
    """The file that exists while a rank saves a checkpoint in the middle of its training: it need not step then."""
    return scratch / f"saving-{rank}"


class Watch:
    """Whether the training processes of this pod get on.

    ``patience``: seconds that a phase without steps, or the first steps, may take without anything new;
    ``least_step``: what any step may take. Only the time in which the watcher itself runs is counted, so that a machine
    that slept has not stalled.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        patience: float,
        least_step: float = LEAST_STEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scratch = scratch
        self._least_step = least_step
        self._patience = patience
        self._clock = clock
        self._looked = clock()
        self._pulses: dict[Path, _Pulse] = {}
        self._living: list[_Pulse] = []
        self._alone = 0.0

    def look(self) -> None:
        """Takes note of how the ranks are. Cheap to call often."""
        elapsed = self._clock() - self._looked
        if elapsed < _LOOK_SECONDS:
            return
        self._looked += elapsed
        awake = min(elapsed, _AWAKE_SECONDS)
        self._living = list(self._feel(awake))
        self._alone += awake if _has_lost_one(self._scratch) else 0.0

    @property
    def bereaved(self) -> bool:
        """Whether a rank failed a while ago and others still wait for it: their attempt is over."""
        return self._alone > _MOURNING_SECONDS

    @property
    def stalled(self) -> str | None:
        """What is known of a stall, as a sentence; None while all is well."""
        pulses = self._living
        if not pulses or any(pulse.silence <= pulse.limit(self._patience) for pulse in pulses):
            return None
        return max(pulses, key=lambda pulse: pulse.silence).told(self._patience)

    def _feel(self, elapsed: float) -> "Iterator[_Pulse]":
        """The pulse of each rank that has told something and has not ended."""
        for path in sorted(self._scratch.glob(_PROGRESS)):
            rank = path.stem.removeprefix("progress").removeprefix("-") or "0"
            progress = read_progress(path)
            if progress is None or (self._scratch / f"rank-{rank}.json").exists():
                continue
            pulse = self._pulses.setdefault(path, _Pulse(self._least_step))
            pulse.feel(progress, elapsed, saving=saving_file(self._scratch, int(rank)).exists())
            yield pulse


class _Pulse:
    """What one rank last told, how long ago, and how long its steps take."""

    def __init__(self, least_step: float) -> None:
        self.silence = 0.0
        self._least_step = least_step
        self._last: Progress | None = None
        self._saving = False
        self._steps: deque[float] = deque(maxlen=_REMEMBERED)

    def feel(self, progress: Progress, elapsed: float, *, saving: bool) -> None:
        """Takes note of the newest snapshot; ``elapsed``: seconds since the one before was looked at."""
        self.silence += elapsed
        last, self._last = self._last, progress
        began_or_ended, self._saving = saving != self._saving, saving
        if last is not None and last.phase == progress.phase == TRAINING:
            alive = progress.step != last.step
            if alive and not began_or_ended:
                done = max(progress.step - last.step, 1)
                self._steps.extend([self.silence / done] * min(done, _REMEMBERED))
        else:
            alive = last is None or progress.updated_at != last.updated_at
        if alive or began_or_ended:
            self.silence = 0.0

    def limit(self, patience: float) -> float:
        """Seconds of silence after which this rank hangs."""
        steps = self._last is not None and self._last.phase == TRAINING and not self._saving
        if not steps or len(self._steps) < _FEWEST_STEPS:
            return patience
        return max(self._least_step, _SLOWER * statistics.median(self._steps))

    def told(self, patience: float) -> str:
        """The silence in words."""
        where = "" if self._last is None else f" in phase '{self._last.phase}' at step {self._last.step}"
        return f"nothing new for {self.silence:.0f} s{where}, {self.limit(patience):.0f} s are allowed"


def answer_with_stacks(scratch: Path, rank: int) -> None:
    """Makes this process write the stacks of all its threads when the supervisor asks, even while it holds the GIL."""
    path = scratch / _STACKS.format(rank=rank, process=os.getpid())
    temporary = path.with_suffix(".tmp")
    file = temporary.open("w", encoding="utf-8")  # stays open as long as the process lives
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
    temporary.rename(path)  # from here on the signal does no harm


def save_stacks(scratch: Path, target: Path) -> str:
    """Asks every rank of this pod for its stacks and writes them into one file; returns in words who did not."""
    ranks = _ranks(scratch)
    for process, _, _ in ranks:
        _send(process, signal.SIGUSR1)
    _await_answers([path for _, _, path in ranks])
    parts, silent = [], []
    for process, rank, path in ranks:
        stacks = path.read_text(encoding="utf-8", errors="replace")
        if not stacks:
            stacks = f"no answer: the process is in state {_state(process)}\n"
            silent.append(f"rank {rank} did not answer (state {_state(process)})")
        parts.append(f"rank {rank}, process {process}\n{stacks}")
    write_atomically(target, "\n".join(parts).encode())
    return "; ".join(silent) or "every rank answered"


def end_ranks(scratch: Path) -> None:
    """Ends every training process of this pod, stopped ones too."""
    for process, _, _ in _ranks(scratch):
        _send(process, signal.SIGKILL)


def stacks_file(folder: Path, *, attempt: int, node: str) -> Path:
    """Where the stacks of an attempt's pod are kept."""
    return folder / layout.LOGS / f"stalled-{attempt}-{node}.txt"


def _ranks(scratch: Path) -> list[tuple[int, int, Path]]:
    """Process, rank and file of each training process that started here and has not ended."""
    found = []
    for path in scratch.glob(_STACKS.format(rank="*", process="*")):
        _, rank, process = path.stem.split("-")
        if not (scratch / f"rank-{rank}.json").exists():
            found.append((int(process), int(rank), path))
    return sorted(found, key=lambda entry: entry[1])


def _has_lost_one(scratch: Path) -> bool:
    """Whether a rank told of a failure, or is gone without a word."""
    failed = any(_tells_of_failure(path) for path in scratch.glob("rank-*.json"))
    return failed or any(not Path(f"/proc/{process}").exists() for process, _, _ in _ranks(scratch))


def _tells_of_failure(outcome: Path) -> bool:
    try:
        code = ExitCode(json.loads(outcome.read_bytes())["exitCode"])
    except (ValueError, KeyError):
        return True
    return code is not ExitCode.DONE and not code.preempted


def _send(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _await_answers(files: list[Path]) -> None:
    """Waits until every file has something and none grows any more."""
    deadline = time.monotonic() + _STACK_SECONDS
    sizes: list[int] = []
    while time.monotonic() < deadline:
        before, sizes = sizes, [path.stat().st_size for path in files]
        if all(sizes) and sizes == before:
            return
        time.sleep(0.2)


def _state(process: int) -> str:
    """What the kernel says of a process, such as ``T (stopped)``."""
    try:
        status = Path(f"/proc/{process}/status").read_text("ascii", errors="replace")
    except OSError:
        return "unknown"
    return next(
        (line.partition(":")[2].strip() for line in status.splitlines() if line.startswith("State:")), "unknown"
    )
