"""The few things that the ranks of one training run agree on."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from torch import distributed


def rank() -> int:
    """This process's number; 0 leads."""
    number: int = distributed.get_rank() if distributed.is_initialized() else 0
    return number


def size() -> int:
    """Processes of the gang."""
    number: int = distributed.get_world_size() if distributed.is_initialized() else 1
    return number


def barrier() -> None:
    """Waits for all ranks."""
    if size() > 1:
        distributed.barrier()


def gather(value: Any) -> list[Any]:
    """Every rank's value, in the order of ranks."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return values


class Stop:
    """Whether the gang shall stop: yes as soon as one rank was asked to.

    Ranks get the signal at different moments, and a rank that left alone would leave the others waiting for it.
    """

    def __init__(self, asked: Event, *, device: Any) -> None:
        self._asked = asked
        self._flag = torch.zeros(1, dtype=torch.int32, device=device)

    def agreed(self) -> bool:
        """The same answer in every rank, if all call it at the same point. Costs one all-reduce of four bytes."""
        if size() == 1:
            return self._asked.is_set()
        self._flag.fill_(int(self._asked.is_set()))
        distributed.all_reduce(self._flag, op=distributed.ReduceOp.MAX)
        return bool(self._flag.item())


@contextmanager
def losing_peers() -> Iterator[None]:
    """Turns the error of a broken process group into ``StageError`` (PEER_LOST): another rank is the cause."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        broken = isinstance(error, distributed.DistError) or "gloo" in text or "NCCL" in text
        if not broken or size() == 1:
            raise
        message = f"another training process ended or did not answer: {text.splitlines()[0]}"
        raise StageError(ExitCode.PEER_LOST, "PeerLost", message) from error
