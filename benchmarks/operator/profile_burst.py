"""Where the operator's time goes in a burst of 1,000 FineTuneJobs: ``python -m benchmarks.operator.profile_burst``.

Prints the functions that took most of it, without and with what they call; profiling itself slows the operator.
"""

import asyncio
import pstats
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.operator.comparators import free_port, started
from benchmarks.operator.ground import ground
from benchmarks.operator.load import burst, fresh_names
from benchmarks.operator.scenes import WARM_UP, our_wave

_SIZE: Final = 1000
_LINES: Final = 40


async def profile(folder: Path) -> Path:
    """Lets an operator work off a burst, and returns the file with what it spent its time on."""
    found = folder / "operator.prof"
    command = [sys.executable, "-m", "cProfile", "-o", str(found), "-m", "posttrain_operator"]
    async with ground(folder) as plane:
        with started(command, folder / "operator", plane.server, {"POSTTRAIN_PORT": str(free_port())}):
            await our_wave(plane, fresh_names(WARM_UP), burst)
            wave = await our_wave(plane, fresh_names(_SIZE), burst)
    sys.stdout.write(f"{wave.to_json()}\n")
    return found


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="posttrain-bench-") as folder:
        found = pstats.Stats(str(asyncio.run(profile(Path(folder)))))
        found.sort_stats("tottime").print_stats(_LINES)
        found.sort_stats("cumulative").print_stats(_LINES)


if __name__ == "__main__":
    main()
