"""Runs one pod's command and sees to it that nothing of it is left over: ``python -m posttrain.local.shim SPEC``.

The shim is to a local pod what a container runtime's shim is to a container. It adopts every orphan among the pod's
processes (Linux child subreaper), and it kills them all when the command ends, when it is told to, and when the program
that started it is gone: the other end of its standard input closes, however that program died.

Standard library only, because every pod pays for its start.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_POLL_SECONDS: Final = 0.1


def main(spec_path: str) -> int:
    """Runs the command of a spec file to its end and returns its exit status, 128 + N for signal N."""
    spec: dict[str, Any] = json.loads(Path(spec_path).read_text(encoding="utf-8"))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        return _run(spec)
    finally:
        _kill_descendants()
        shutil.rmtree(spec["scratch"], ignore_errors=True)


def _run(spec: dict[str, Any]) -> int:
    with Path(spec["log"]).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - the pod template's command
            spec["command"],
            cwd=spec["scratch"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_before_command,  # noqa: PLW1509 - this process has one thread
        )
    deadline: float | None = None
    while (status := process.poll()) is None:
        order = _read_order(_POLL_SECONDS)
        if order == b"kill" or (deadline is not None and time.monotonic() > deadline):
            process.kill()
        elif order == b"term" and deadline is None:
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + float(spec["grace_seconds"])
    return 128 - status if status < 0 else status


def _prctl(option: int, value: int) -> None:
    _LIBC.prctl(option, value, 0, 0, 0)


def _before_command() -> None:
    """In the new process: it dies with the shim, and gets the signals that the shim ignores."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _read_order(timeout: float) -> bytes:
    """``term``, ``kill`` or nothing; ``kill`` when the starter is gone."""
    readable, _, _ = select.select([sys.stdin], [], [], timeout)
    if not readable:
        return b""
    data = os.read(sys.stdin.fileno(), 64)
    return data.split()[-1] if data else b"kill"


def _kill_descendants() -> None:
    """Kills and reaps until no descendant is left; orphans become our children, so none can hide."""
    while descendants := _descendants():
        for pid in descendants:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return
    time.sleep(0.01)


def _descendants() -> list[int]:
    """Every living process below this one, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            parents[int(entry.name)] = parent
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def _parent(entry: Path) -> int | None:
    try:
        # The command's name may hold spaces and parentheses; the fields after its last one are plain.
        fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
