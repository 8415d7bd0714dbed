"""One control plane for a whole run of pytest, whichever of its processes asks first: ``keeper.py OWNER FOLDER TOOLS``.

The keeper runs the control plane until the owner, the process that all of the run descend from, is gone.
"""

import fcntl
import os
import select
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # started as a program, not as a part of the tests
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.control_plane import SECONDS, Access, ControlPlane
from support.tools import Tools


def shared_control_plane(folder: Path, tools: Tools, *, owner: int) -> Access:
    """The run's control plane, started by the first who asks; ``folder`` is the same for all."""
    folder.mkdir(exist_ok=True)
    published = folder / "access.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not published.exists():
            _start_keeper(folder, tools, owner)
    return Access.load(published)


def _start_keeper(folder: Path, tools: Tools, owner: int) -> None:
    command = [sys.executable, __file__, str(owner), str(folder), str(tools.programs), str(tools.pytorchjob_crd)]
    with (folder / "keeper.log").open("wb") as log:
        # A session of its own: the interrupt key ends the owner, and the owner's end the keeper.
        keeper = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 2 * SECONDS
    while not (folder / "access.json").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no control plane: {(folder / 'keeper.log').read_text()[-2000:]}")
        time.sleep(0.02)
    keeper.returncode = 0  # it outlives this process, which need not warn about that


def main(owner: int, folder: Path, tools: Tools) -> None:
    """Runs a control plane until the owner is gone."""
    gone = os.pidfd_open(owner)
    with ControlPlane(folder, tools) as plane:
        plane.access.save(folder / "access.json")
        select.select([gone], [], [])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Tools(Path(sys.argv[3]), Path(sys.argv[4])))
