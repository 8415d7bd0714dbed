"""A module of this benchmark as a process of its own."""

import json
import subprocess
import sys
from typing import Any


def ask(module: str, *arguments: str) -> dict[str, Any]:
    """What the module prints on its last line; a failure ends the benchmark with the module's own words."""
    command = [sys.executable, "-m", f"benchmarks.finetune.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
