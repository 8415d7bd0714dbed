"""Looking at processes, so that a test can end one of them."""

import os
from pathlib import Path


def children(process: int) -> list[int]:
    """The direct children of a process."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()]


def command_line(process: int) -> str:
    """How a process calls itself."""
    return Path(f"/proc/{process}/cmdline").read_text("utf-8")


def environment(process: int) -> dict[str, str]:
    """The environment that a process was started with."""
    entries = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)
