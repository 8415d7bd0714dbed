"""The trainer's end of the weight transfer: gloo on CPU, NCCL on GPUs. The servers' requests are the same."""

import errno
import socket
from collections.abc import Iterable
from typing import Any, Protocol

from posttrain_contract import layout
from posttrain_runtime.telemetry import port_taken
from posttrain_training.weights import SENDER, GlooGroup

_TIMEOUT_SECONDS = 300.0

Named = tuple[str, Any]
"""A parameter's name and its tensor."""


class Sender(Protocol):
    """The sending end of the group."""

    def send(self, parameters: Iterable[Named]) -> None:
        """Sends the tensors in order; returns when all receivers have them."""


def listen(address: str) -> socket.socket:
    """A socket that listens for the group at ``layout.WEIGHT_PORT``. Raises ``StageError`` (PORT_TAKEN)."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, layout.WEIGHT_PORT))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise port_taken(address, layout.WEIGHT_PORT, what="the weight transfer") from error
    return listener


def open_sender(*, address: str, world_size: int, device: Any) -> Sender:
    """Waits for the receivers at ``address`` and ``layout.WEIGHT_PORT``."""
    if device.type == "cpu":
        return _GlooSender(address, world_size)
    return _NcclSender(address, world_size, device)


class _GlooSender:
    def __init__(self, address: str, world_size: int) -> None:
        self._group = GlooGroup(
            address=address,
            port=layout.WEIGHT_PORT,
            rank=SENDER,
            world_size=world_size,
            timeout_seconds=_TIMEOUT_SECONDS,
            listener=listen(address),
        )

    def send(self, parameters: Iterable[Named]) -> None:
        for _, tensor in parameters:
            self._group.broadcast(tensor.detach().contiguous())


class _NcclSender:
    def __init__(self, address: str, world_size: int, device: Any) -> None:
        import torch  # noqa: PLC0415
        from vllm.distributed.weight_transfer.nccl_common import trainer_init  # noqa: PLC0415 - needs CUDA libraries

        listen(address).close()
        if device.index is not None:
            torch.cuda.set_device(device)
        self._group = trainer_init(
            {"master_address": address, "master_port": layout.WEIGHT_PORT, "world_size": world_size, "packed": True}
        )

    def send(self, parameters: Iterable[Named]) -> None:
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer  # noqa: PLC0415

        packed_nccl_broadcast_producer(
            iterator=iter(parameters), group=self._group, src=SENDER, post_iter_func=lambda item: item[1]
        )
