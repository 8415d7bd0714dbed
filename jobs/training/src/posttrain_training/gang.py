"""The few things that the ranks of one training run agree on."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_runtime.ranks import world_size
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


def is_broken_group(error: Exception) -> bool:
    """Whether an error says that a process group lost a member or was never whole.

    PyTorch has a class for the failures of its store and of NCCL; gloo's failures are plain and tell by their text.
    """
    text = str(error).lower()
    told = isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text)
    return told or isinstance(error, distributed.DistError)


@contextmanager
def losing_peers() -> Iterator[None]:
    """Turns the error of a broken process group into ``StageError`` (PEER_LOST): another rank is the cause.

    It is meant to be around all that a rank does, since any collective can be the one that meets the loss, and the
    first of them makes the group. So the gang's size is the one that was asked for: there may be no group to ask.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_broken_group(error) or world_size() == 1:
            raise
        raise StageError(
            ExitCode.PEER_LOST,
            "PeerLost",
            f"spec.distributed: another training process ended or did not answer ({first_line(error)}); look into the "
            "logs of the other pods, and raise run.resources.memory when one of them was killed for its memory",
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's text; the lines below it are a stack of C++ frames."""
    return (str(error).splitlines() or [type(error).__name__])[0]
