"""A GET over loopback, for probes and progress: small bodies from our own telemetry endpoint."""

import asyncio
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT: Final = 2.0
_OK: Final = b" 200 "


async def get(url: str) -> bytes | None:
    """The body of a 200 answer; None for anything else, also when nobody answers in time."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await _get(url)
    except (OSError, TimeoutError):
        return None


async def _get(url: str) -> bytes | None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if _OK in head.split(b"\r\n", 1)[0] else None
