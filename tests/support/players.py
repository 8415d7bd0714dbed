"""The parts that a test plays beside the real API server and its controllers: the kubelet and the training operator.

Jobs and StatefulSets have their real controllers; nothing but these two is played.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from support.api_client import ApiClient, Server
from support.kubelet import Kubelet, Life, PlayedPod
from support.loop_thread import LoopThread
from support.pod_lives import works
from support.training_operator import TrainingOperator


class Players:
    """Plays for one namespace; ``life`` may be replaced at any time and holds for pods that begin after that."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.failures: list[BaseException] = []
        """What a player stumbled over: defects of a test."""
        self._client: ApiClient
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        kubelet = Kubelet(client, self._live, self._spawn)
        trainer = TrainingOperator(client)
        pods, jobs = f"/api/v1/namespaces/{namespace}/pods", f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs"
        self._spawn(client.observe(pods, kubelet.see))
        self._spawn(client.observe(pods, trainer.see_pod))
        self._spawn(client.observe(jobs, trainer.see_job))
        self._spawn(trainer.run())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _live(self, pod: PlayedPod) -> None:
        await self.life(pod)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)


@contextmanager
def playing(server: Server, namespace: str, life: Life = works) -> Iterator[Players]:
    """Plays until the end of the context, and raises what went wrong on the way."""
    players = Players(life)

    async def begin() -> None:
        await players.start(ApiClient(server, patient=True), namespace)

    with LoopThread("players") as loop:
        loop.call(begin())
        try:
            yield players
        finally:
            loop.call(players.stop())
    if players.failures:
        raise players.failures[0]
