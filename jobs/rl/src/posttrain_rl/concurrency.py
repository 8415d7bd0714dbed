"""Doing several things at once where one failure must end the wait for the others."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def concurrently(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of all calls, in their order; the first exception is raised as soon as it happens.

    Calls that are still going on then are abandoned in daemon threads: a broadcast that waits for a dead server must
    not keep the process from ending.
    """
    done: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
    futures: list[Future[Result]] = [Future() for _ in calls]

    def run(future: Future[Result], call: Callable[[], Result]) -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            future.set_exception(error)
        done.put(future)

    for future, call in zip(futures, calls, strict=True):
        threading.Thread(target=run, args=(future, call), daemon=True).start()
    for _ in calls:
        done.get().result()
    return [future.result() for future in futures]
