"""Quantities, durations and moments as they are written in manifests."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

from pydantic import Field

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
"""A Kubernetes quantity, such as 500m or 64Gi; always a string, so a bare number wants quotes."""

DURATION: Final = r"^([0-9]{1,6}[smhd]){1,4}$"
Duration = Annotated[str, Field(pattern=DURATION, max_length=32)]
"""A time span in s, m, h and d, such as 90m or 1h30m; bounded, so that no sum of them overflows."""

_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {f"{prefix}i": 1 << 10 * power for power, prefix in enumerate("KMGTPE", start=1)}
_YEARS: Final = (1970, 5000)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def to_timedelta(duration: str) -> timedelta:
    """The time span of a ``Duration``."""
    parts = re.findall(r"([0-9]+)([smhd])", duration)
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())


def to_datetime(moment: str) -> datetime:
    """A moment as Kubernetes writes it, in UTC. Raises ``ValueError``, also for years far from any present."""
    found = datetime.fromisoformat(moment)
    if not _YEARS[0] <= found.year < _YEARS[1]:
        raise ValueError(f"{moment}: the year must be from {_YEARS[0]} to {_YEARS[1]}")
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)


def moment(value: object) -> datetime | None:
    """A time that an object of the cluster says, or None where it says none; without an offset it is UTC."""
    try:
        return to_datetime(value) if isinstance(value, str) else None
    except ValueError:
        return None


def to_amount(quantity: object) -> Decimal | None:
    """The number that a quantity of the cluster says, also with an exponent, or None when it is none."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]{1,3})?)([A-Za-z]{0,2})", str(quantity))
    try:
        number = Decimal(match[1]) if match else None
    except InvalidOperation:
        return None
    if match is None or number is None:
        return None
    if match[2] in _BINARY:
        return number * _BINARY[match[2]]
    return number.scaleb(_DECIMAL[match[2]]) if match[2] in _DECIMAL else None


def to_quantity(amount: Decimal) -> str:
    """A number as a short quantity, such as 64Gi or 0.5."""
    for unit, size in reversed(_BINARY.items()):
        if abs(amount) >= size and amount % size == 0:
            return f"{amount / size:f}" + unit
    return f"{amount.normalize():f}"
