"""What pods do, told one by one or by a table."""

import asyncio
import threading
from collections.abc import Callable

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_operator.labels import Role
from support.kubelet import Life, PlayedPod
from support.scene import SUCCESS, failure

_DONE = SUCCESS.model_copy(update={"artifact": None})


async def works(pod: PlayedPod) -> None:
    """Servers serve for ever; everybody else runs and succeeds, and the leader tells of the artifact."""
    await pod.start()
    if pod.role != Role.SERVERS:
        await pod.end(ExitCode.DONE, SUCCESS if pod.leads else _DONE)


def works_until(event: threading.Event) -> Life:
    """As ``works``, but nobody ends before the event."""
    return held(event, works)


async def runs(pod: PlayedPod) -> None:
    """Runs for ever."""
    await pod.start()


def then(life: Life, event: threading.Event, after: Life) -> Life:
    """One life up to the event, and another one from there."""

    async def lives(pod: PlayedPod) -> None:
        await life(pod)
        while not event.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.02)
        await after(pod)

    return lives


def held(event: threading.Event, life: Life) -> Life:
    """Runs, and goes on with its life after the event."""
    return then(runs, event, life)


def fails(code: ExitCode, reason: str = "Broken", message: str = "it broke") -> Life:
    """Runs, and tells how it failed."""

    async def life(pod: PlayedPod) -> None:
        await pod.start()
        await pod.end(code, failure(code, reason, message))

    return life


def ends(code: int, result: StageResult | None = None, *, reason: str = "") -> Life:
    """Runs and ends with a status."""

    async def life(pod: PlayedPod) -> None:
        await pod.start()
        await pod.end(code, result, reason=reason)

    return life


out_of_memory = ends(137, reason="OOMKilled")
"""Runs until it is killed at its memory limit."""


async def is_evicted(pod: PlayedPod) -> None:
    """Runs until its node needs the room."""
    await pod.start()
    message = "The node was low on resource: memory."
    await pod.disrupt(reason="Evicted", condition="TerminationByKubelet", message=message)


async def loses_its_node(pod: PlayedPod) -> None:
    """Runs until its node is gone, and so is the pod."""
    await pod.start()
    await pod.disrupt(reason="NodeLost", condition="DeletionByPodGC", message="the node was deleted")
    await pod.vanish()


async def cannot_be_pulled(pod: PlayedPod) -> None:
    """Waits for its image."""
    await pod.wait("ImagePullBackOff", f'Back-off pulling image "{pod.raw["spec"]["containers"][0]["image"]}"')


async def misses_a_secret(pod: PlayedPod) -> None:
    """Waits for a Secret."""
    await pod.wait("CreateContainerConfigError", 'secret "hub-token" not found')


async def does_not_fit(pod: PlayedPod) -> None:
    """Waits for a node."""
    await pod.stay_unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")


async def never_starts(_: PlayedPod) -> None:
    """Nobody cares for it."""


def cast(choose: Callable[[PlayedPod], Life | None]) -> Life:
    """Pods to whom ``choose`` gives no life just work."""

    async def life(pod: PlayedPod) -> None:
        await (choose(pod) or works)(pod)

    return life


def at_attempt(lives: dict[int, Life], *, role: str = "") -> Life:
    """The leader of the attempt with this number lives otherwise, or with ``role`` every pod of that role."""

    def choose(pod: PlayedPod) -> Life | None:
        chosen = pod.role == role if role else pod.leads
        return lives.get(pod.attempt) if chosen else None

    return cast(choose)


def in_turn(*lives: Life) -> Life:
    """All pods of the first attempt live the first life, and so on; those of later attempts the last."""

    async def life(pod: PlayedPod) -> None:
        await lives[min(pod.attempt, len(lives)) - 1](pod)

    return life
