"""No process of the server outlives the stage, whichever of them died first.

vLLM's engine and its workers are children of the server process; when that is killed they stay behind with the memory
of the model. As their adoptive parent the stage can end them. In a pod it is that anyway, being process 1.
"""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def kill_descendants() -> None:
    """Kills every process below this one and reaps those that became its children."""
    while children := _children(os.getpid()):
        for child in children:
            _kill_tree(child)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _kill_tree(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)  # so that it starts no more children while they are counted
        for child in _children(process):
            _kill_tree(child)
        os.kill(process, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state_and_parent = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(state_and_parent[1]) == parent:
                    found.append(int(entry.name))
    return found
