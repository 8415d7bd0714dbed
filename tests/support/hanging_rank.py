"""``python -m support.hanging_rank``: a training process that says it trains and then hangs, as ``HANG`` tells."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import RankOutcome, run_rank


def _hold_the_gil() -> None:
    """One call into C that lets no other thread run, for longer than anybody waits."""
    re.match("(a+)+$", "a" * 64 + "b")


HANGS: Mapping[str, Callable[[], object]] = {
    "sleep": lambda: time.sleep(1000),
    "gil": _hold_the_gil,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def work(context: StageContext[Any]) -> RankOutcome:
    """Tells its progress once, and no more."""
    context.progress.update("loading model")
    HANGS[os.environ["HANG"]]()
    return RankOutcome(rank=0, time=time.time(), exit_code=ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(run_rank(work))
