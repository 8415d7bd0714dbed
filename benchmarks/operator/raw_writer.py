"""The limit that the API server sets: the operator's own writes, by a program that neither watches nor thinks.

What is written is not described here: one pass of the operator's loop is recorded as it goes out, and replayed for
every object, in the same order, with as many requests under way as the operator can have.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from kubernetes.aio import client as kubernetes
from posttrain_operator.cache import Cache
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.controller import _WORKERS
from posttrain_operator.kube import KubeCluster
from posttrain_operator.reconcile import reconcile
from posttrain_operator.rest import CONNECTIONS, Rest
from posttrain_operator.settings import Settings
from posttrain_operator.telemetry import Telemetry
from support.api_client import ApiClient, Server

from benchmarks.operator.load import Arrival, Sender, Wave, finetunejob, finetunejobs, since_first

NAME: Final = "recorded-job"
UID: Final = "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f"
VERSION: Final = "918273645546"


@dataclass(frozen=True)
class Write:
    """One request as the operator sends it, for the object ``NAME``."""

    method: str
    path: str
    body: str
    content: str

    @property
    def kind(self) -> str:
        """The kind of what is created; empty for a status."""
        return str(json.loads(self.body).get("kind", ""))

    def adapted(self, text: str, job: Json) -> str:
        """The path or the body for another object."""
        metadata = job["metadata"]
        text = text.replace(UID, metadata["uid"]).replace(UID[:8], metadata["uid"][:8])
        return text.replace(VERSION, metadata["resourceVersion"]).replace(NAME, metadata["name"])


@dataclass
class _Recorder(Rest):
    """Answers as an API server that has nothing but one object, and keeps what was sent."""

    configuration: kubernetes.Configuration = field(default_factory=kubernetes.Configuration)
    job: Json = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Opens no connection."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        self.writes.append(Write(method, path, json.dumps(body), content))
        if method == "PATCH":
            self.job = {**self.job, "status": _merged(self.job.get("status") or {}, body["status"])}
            return self.job
        return {**body, "metadata": {**body["metadata"], "uid": "made", "resourceVersion": VERSION}}


def _merged(old: Json, patch: Json) -> Json:
    """A JSON merge patch (RFC 7386), applied."""
    kept = {key: value for key, value in old.items() if key not in patch}
    for key, value in patch.items():
        if isinstance(value, dict):
            before = old.get(key)
            kept[key] = _merged(before if isinstance(before, dict) else {}, value)
        elif value is not None:
            kept[key] = value
    return kept


async def recorded(namespace: str) -> list[Write]:
    """What the operator writes when it first sees a FineTuneJob, in order."""
    job = finetunejob(NAME)
    made = {"uid": UID, "resourceVersion": VERSION, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    job["metadata"] = {"name": NAME, "namespace": namespace, **made}
    recorder, cache = _Recorder(job=job), Cache()
    cache.put(job)
    cluster = KubeCluster(recorder, cache, Telemetry(Settings().progress_interval))
    await reconcile(cluster, Ref.of(job), Settings(), now=datetime.now(UTC))
    return recorder.writes


async def raw_wave(server: Server, client: ApiClient, namespace: str, names: Sequence[str], arrival: Arrival) -> Wave:
    """Creates objects as a user, and for each at once what the operator would write."""
    writes = await recorded(namespace)
    created: asyncio.Queue[Json] = asyncio.Queue()
    child: dict[str, float] = {}
    last = 0.0

    async def post(name: str) -> None:
        created.put_nowait(await client.create(finetunejobs(namespace), finetunejob(name)))

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal last
        while True:
            job = await created.get()
            for write in writes:
                await _send(session, server, write, job)
                if write.kind == "PyTorchJob":
                    child[job["metadata"]["name"]] = time.perf_counter()
            last = time.perf_counter()
            created.task_done()

    sender = Sender(post)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=server.tls())
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        workers = [asyncio.create_task(work(session)) for _ in range(_WORKERS)]
        await arrival(names, sender)
        await _all_done(created, workers)
    return since_first(sender.sent, child, last)


async def _all_done(created: "asyncio.Queue[Json]", workers: Sequence["asyncio.Task[None]"]) -> None:
    """Waits for the queue to be worked off, or raises what a worker stumbled over."""
    joining = asyncio.create_task(created.join())
    await asyncio.wait([joining, *workers], return_when=asyncio.FIRST_COMPLETED)
    for task in (joining, *workers):
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(joining, *workers, return_exceptions=True)


async def _send(session: aiohttp.ClientSession, server: Server, write: Write, job: Json) -> None:
    url, body = server.url + write.adapted(write.path, job), write.adapted(write.body, job)
    async with session.request(write.method, url, data=body, headers={"Content-Type": write.content}) as answer:
        text = await answer.text()
        if answer.status >= 400:
            raise RuntimeError(f"{write.method} {url}: {answer.status}: {text}")
        if write.method == "PATCH":
            job["metadata"] = json.loads(text)["metadata"]
