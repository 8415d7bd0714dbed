"""The process group in which a trainer on CPU broadcasts its weights to rollout servers. Both ends use this module."""

from datetime import timedelta
from socket import socket
from typing import Any

import torch
from torch import distributed

SENDER = 0
"""The trainer's rank in the group; the servers' workers follow."""


class GlooGroup:
    """One end of the group. Every call waits for the other ends, at most ``timeout_seconds``."""

    def __init__(
        self,
        *,
        address: str,
        port: int,
        rank: int,
        world_size: int,
        timeout_seconds: float,
        listener: socket | None = None,
    ) -> None:
        """Joins the group that meets at ``address`` and ``port``, where the sender's ``listener`` listens.

        Raises ``torch.distributed.DistError`` or ``RuntimeError`` when the others do not come in time.
        """
        timeout = timedelta(seconds=timeout_seconds)
        self._store = distributed.TCPStore(
            address,
            port,
            world_size,
            is_master=rank == SENDER,
            timeout=timeout,
            wait_for_workers=False,
            # Without a socket of ours the store would listen on every address of the machine.
            master_listen_fd=None if listener is None else listener.detach(),
        )
        prefixed = distributed.PrefixStore("weights", self._store)
        self._group = distributed.ProcessGroupGloo(prefixed, rank, world_size, timeout)

    def broadcast(self, tensor: Any) -> None:
        """Sends a contiguous CPU tensor, or receives into it at the other ends."""
        options = distributed.BroadcastOptions()
        options.rootRank = SENDER
        self._group.broadcast([tensor], options).wait()


def tensor_type(name: str) -> torch.dtype:
    """The element type that a name such as ``float32`` stands for."""
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"{name!r} is no tensor type")
    return found
