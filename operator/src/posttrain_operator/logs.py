"""Logs as one JSON object a line, each with what it is about: kind, namespace, name, generation, attempt."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from posttrain_operator.cluster import Json, Ref
from posttrain_operator.observe.raw import mapping, mappings

_ABOUT: ContextVar[Mapping[str, Any] | None] = ContextVar("about", default=None)
_QUIET: Final = ("kopf.activities", "kopf.objects", "aiohttp.access", "asyncio")
"""Loggers that tell of every event or request; only their warnings matter."""


class JsonFormatter(logging.Formatter):
    """A record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_ABOUT.get() or {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def about(ref: Ref, raw: Json | None) -> Iterator[None]:
    """What everything that is logged inside is about."""
    facts: dict[str, Any] = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
    if raw is not None:
        facts["generation"] = raw["metadata"].get("generation")
        attempts = mappings(mapping(raw.get("status")).get("attempts"))
        if attempts:
            facts["attempt"] = attempts[-1].get("number")
    token = _ABOUT.set(facts)
    try:
        yield
    finally:
        _ABOUT.reset(token)


def set_up(level: str) -> None:
    """Sends everything from ``level`` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
