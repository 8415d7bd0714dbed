"""The soak of hours (benchmarks/operator/soak.py) in its short form."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"hours": 8 / 3600, "jobs": 20, "per-second": 4, "restart-minutes": 4 / 60, "idle-minutes": 3 / 60}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("tools")
def test_changes_and_restarts_leave_nothing_behind_and_then_nothing_is_written() -> None:
    options = [word for name, value in SHORT.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "benchmarks.operator.soak", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    figures = dict(
        line.split(maxsplit=2)[:2] for line in done.stdout.splitlines() if line.startswith(("changes", "restarts"))
    )
    assert int(figures["changes"]) >= 10
    assert int(figures["restarts"]) >= 1
