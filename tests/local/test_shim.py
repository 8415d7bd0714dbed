"""The shim: what a pod starts ends with it, however it ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.waiting import wait_for

ORPHAN = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
"""Starts a process, tells its id, and leaves it behind."""


class Shim:
    """A shim that runs one Python program."""

    def __init__(self, folder: Path, program: str, *, grace: float = 60) -> None:
        self.log = folder / "log"
        scratch = folder / "scratch"
        scratch.mkdir()
        spec = {
            "command": [sys.executable, "-u", "-c", program],
            "scratch": str(scratch),
            "log": str(self.log),
            "grace_seconds": grace,
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "posttrain.local.shim", str(folder / "spec.json")],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.scratch = scratch

    def order(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def close(self) -> None:
        """What the kernel does when the starter dies."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> int:
        status = self.process.wait(20)
        self.close()
        return status

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def wait_for_line(self) -> str:
        wait_for(lambda: bool(self.lines), "the program's first word", seconds=20)
        return self.lines[0]


def test_the_exit_status_is_the_commands(tmp_path: Path) -> None:
    assert Shim(tmp_path, "raise SystemExit(64)").wait() == 64


def test_death_by_a_signal_is_told_as_shells_do(tmp_path: Path) -> None:
    assert Shim(tmp_path, "import os; os.kill(os.getpid(), 9)").wait() == 137


def test_an_orphan_ends_with_the_command(tmp_path: Path) -> None:
    shim = Shim(tmp_path, ORPHAN)
    assert shim.wait() == 0
    assert not psutil.pid_exists(int(shim.lines[0]))


def test_a_daemon_in_a_session_of_its_own_ends_too(tmp_path: Path) -> None:
    shim = Shim(tmp_path, ORPHAN.replace("])", "], start_new_session=True)"))
    assert shim.wait() == 0
    assert not psutil.pid_exists(int(shim.lines[0]))


def test_everything_ends_when_the_starter_is_gone(tmp_path: Path) -> None:
    shim = Shim(tmp_path, f"{ORPHAN}; import time; time.sleep(600)")
    orphan = int(shim.wait_for_line())
    shim.close()
    assert shim.wait() == 137
    assert not psutil.pid_exists(orphan)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_the_terminal_do_not_reach_the_shim(tmp_path: Path, number: signal.Signals) -> None:
    shim = Shim(tmp_path, "print('up'); import time; time.sleep(600)")
    shim.wait_for_line()
    shim.process.send_signal(number)
    shim.order("kill\n")
    assert shim.wait() == 137


def test_a_command_may_save_before_it_ends(tmp_path: Path) -> None:
    program = "import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); print('up'); signal.pause()"
    shim = Shim(tmp_path, program)
    shim.wait_for_line()
    shim.order("term\n")
    assert shim.wait() == 143


def test_a_command_that_does_not_end_is_killed_after_its_grace(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    shim = Shim(tmp_path, program, grace=0.5)
    shim.wait_for_line()
    shim.order("term\n")
    assert shim.wait() == 137


def test_the_scratch_folder_goes_with_the_pod(tmp_path: Path) -> None:
    shim = Shim(tmp_path, "open('left', 'w').write('x')")
    shim.wait()
    assert not shim.scratch.exists()


def test_a_killed_shim_takes_its_command_along(tmp_path: Path) -> None:
    shim = Shim(tmp_path, "import os, time; print(os.getpid()); time.sleep(600)")
    command = int(shim.wait_for_line())
    shim.process.kill()
    shim.wait()
    wait_for(lambda: not psutil.pid_exists(command), "the end of the command", seconds=10)
