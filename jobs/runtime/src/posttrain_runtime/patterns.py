"""Answers by the user's own pattern, which may be a bad one: a search that takes too long finds nothing.

Python's ``re`` cannot be interrupted, so a pattern like ``(a|aa)+c`` would stop the stage for ever. The ``regex``
package reads the same patterns and gives up after so many seconds of computing.
"""

import logging
import threading
from collections import deque

import regex
from posttrain_contract.exit_codes import ExitCode

from posttrain_runtime.errors import StageError

log = logging.getLogger(__name__)

SECONDS = 1.0
"""Processor time that one text may cost."""


class PatternReader:
    """Finds the group of the last match of a pattern."""

    def __init__(self, pattern: str) -> None:
        """Raises ``StageError`` (USAGE) for what the ``regex`` package reads differently than the contract does."""
        try:
            self._pattern = regex.compile(pattern)
        except regex.error as error:
            raise StageError(
                ExitCode.USAGE, "InvalidPattern", f"pattern: {pattern!r} cannot be used ({error}); write it differently"
            ) from error
        self._warned = threading.Event()

    def extract(self, text: str) -> str | None:
        """What the group caught in the last match, without white space around it; None without a match or in time."""
        try:
            found = deque(self._pattern.finditer(text, timeout=SECONDS), maxlen=1)
        except TimeoutError:
            self._warn(text)
            return None
        caught = found[0][1] if found else None
        return caught.strip() or None if caught else None

    def _warn(self, text: str) -> None:
        if not self._warned.is_set():
            self._warned.set()
            log.warning(
                "pattern %r took over %g s on a text of %d characters, which counts as having no answer; this is told "
                "once: avoid repetitions within repetitions",
                self._pattern.pattern,
                SECONDS,
                len(text),
            )
