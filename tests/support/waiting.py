"""Waiting for conditions."""

import time
from collections.abc import Callable

SECONDS = 120.0


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = SECONDS, pause: float = 0.02) -> None:
    """Returns once the condition holds; fails with ``what`` when it never does. Looks again after each ``pause``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(pause)
