"""Processes that end without a word at each of their changes to files, one after another."""

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

KILLED = 9
_CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")


def crashes_at(change: int, folder: Path, work: Callable[[], object]) -> bool:
    """Does work in a forked process that ends at its n-th change below a folder; whether there were so many."""
    if (pid := os.fork()) == 0:
        try:
            _die_at(change, folder)
            work()
        except BaseException:  # noqa: BLE001 - the child must never run the parent's tests
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED), "the work failed by itself"
    return status == KILLED


def _die_at(change: int, folder: Path) -> None:
    seen = itertools.count(1)
    here = {folder.as_posix(), folder.resolve().as_posix()}

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGES and any(path in str(arguments[0]) for path in here) and next(seen) == change:
            os._exit(KILLED)

    sys.addaudithook(watch)
