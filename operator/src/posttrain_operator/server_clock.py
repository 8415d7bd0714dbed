"""The time by the API server's clock.

Deadlines compare the present with moments that the API server wrote, and the clock of a node may be wrong, or jump. So
each answer's Date header keeps the time right, and between answers a clock counts that nobody adjusts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_RESOLUTION: Final = timedelta(seconds=1)
"""Of a Date header, which leaves out what is less."""
_TOLERANCE: Final = timedelta(seconds=1)
"""What clocks that are kept in step may differ."""


def _wall() -> datetime:
    return datetime.now(UTC)


@dataclass
class ServerClock:
    """Tells the time; until the first answer, that of the machine."""

    steady: Callable[[], float] = time.monotonic
    """Seconds that pass at the right pace, from any beginning."""
    wall: Callable[[], datetime] = _wall
    """The machine's own clock."""
    _anchor: tuple[float, datetime] = field(init=False)

    def __post_init__(self) -> None:
        self._anchor = self.steady(), self.wall()

    def now(self) -> datetime:
        """The present, in UTC."""
        then, moment = self._anchor
        return moment + timedelta(seconds=self.steady() - then)

    def heard(self, date: str | None, *, seconds: float) -> None:
        """An answer that took so many seconds has this Date header; one that is no date tells nothing."""
        told = _read(date)
        if told is None:
            return
        now = self.now()
        earliest = told - _TOLERANCE
        latest = told + _RESOLUTION + timedelta(seconds=seconds) + _TOLERANCE
        if not earliest <= now <= latest:
            self._anchor = self.steady(), told + _RESOLUTION / 2


def _read(date: str | None) -> datetime | None:
    try:
        told = parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
    return told if told is not None and told.tzinfo is not None else None
