"""Quantities and durations as people write them in manifests."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
"""A Kubernetes quantity, such as 500m or 64Gi; always a string, so a bare number wants quotes."""

Duration = Annotated[str, Field(pattern=r"^([0-9]{1,6}[smhd]){1,4}$", max_length=32)]
"""A time span in s, m, h and d, such as 90m or 1h30m; bounded, so that no sum of them overflows."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def to_timedelta(duration: str) -> timedelta:
    """The time span of a ``Duration``."""
    parts = re.findall(r"([0-9]+)([smhd])", duration)
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
