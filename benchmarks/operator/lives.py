"""Plays what comes after a PyTorchJob: its controller, its one pod, and the progress that the pod tells."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import Progress
from posttrain_operator import labels
from support.api_client import ApiClient, Json
from support.kubelet import NODE, PlayedPod
from support.scene import SUCCESS

_PREFIX: Final = "training.kubeflow.org"
_PAGE: Final = 500


async def pytorchjobs(client: ApiClient, namespace: str) -> AsyncIterator[Json]:
    """The PyTorchJobs of a namespace, page by page."""
    path, token = f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs?limit={_PAGE}", ""
    while True:
        page = await client.get(f"{path}{f'&continue={token}' if token else ''}")
        for job in page["items"]:
            yield job
        if not (token := page["metadata"].get("continue", "")):
            return


class PlayedJob:
    """A PyTorchJob of one pod; each method is one step of its life, told to the API server."""

    def __init__(self, client: ApiClient, job: Json) -> None:
        self.name: str = job["metadata"]["labels"][labels.NAME]
        self._client = client
        self._job = job
        self._pod: PlayedPod

    async def create_pod(self) -> None:
        """The training operator makes the pod."""
        path = f"/api/v1/namespaces/{self._job['metadata']['namespace']}/pods"
        self._pod = PlayedPod(self._client, await self._client.create(path, _pod(self._job)))

    async def report_created(self) -> None:
        """The training operator says that it has seen the job."""
        await self._tell("Created")

    async def pull(self) -> None:
        """The node gets the image."""
        await self._pod.wait("ContainerCreating", "")

    async def start_pod(self, address: str = "") -> None:
        """The container runs."""
        await self._pod.start()
        if address:
            await self._pod.tell(podIP=address, podIPs=[{"ip": address}])

    async def report_running(self) -> None:
        """The training operator says so."""
        await self._tell("Created", "Running", active=1)

    async def end_pod(self) -> None:
        """The stage publishes its artifact and ends."""
        await self._pod.end(ExitCode.DONE, SUCCESS)

    async def report_succeeded(self) -> None:
        """The training operator says so."""
        await self._tell("Created", "Succeeded", succeeded=1)

    async def live(self, address: str = "") -> None:
        """Everything up to a job at work."""
        await self.create_pod()
        await self.start_pod(address)
        await self.report_running()

    async def _tell(self, *conditions: str, **counts: int) -> None:
        metadata, now = self._job["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = [
            {
                "type": kind,
                "status": "True",
                "reason": f"PyTorchJob{kind}",
                "message": f"PyTorchJob {metadata['name']} is {kind.lower()}.",
                "lastUpdateTime": now,
                "lastTransitionTime": now,
            }
            for kind in conditions
        ]
        path = f"/apis/kubeflow.org/v1/namespaces/{metadata['namespace']}/pytorchjobs/{metadata['name']}/status"
        status = {"conditions": told, "startTime": now, "replicaStatuses": {"Worker": counts}}
        await self._client.merge(path, {"status": status})


def _pod(job: Json) -> Json:
    """The pod as the training operator makes it, on a node already."""
    metadata = job["metadata"]
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    own = {
        f"{_PREFIX}/operator-name": "pytorchjob-controller",
        f"{_PREFIX}/job-name": metadata["name"],
        f"{_PREFIX}/replica-type": "worker",
        f"{_PREFIX}/replica-index": "0",
    }
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-worker-0",
            "labels": {**template["metadata"]["labels"], **own},
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {**template["spec"], "nodeName": NODE},
    }


@asynccontextmanager
async def progress_endpoints(number: int) -> AsyncIterator[Sequence[str]]:
    """Answers /progress at so many loopback addresses, with a step more at every question."""
    steps = itertools.count(1)

    async def answer(_: web.Request) -> web.Response:
        told = Progress(phase="training", step=next(steps), total_steps=10**6, updated_at=time.time())
        return web.json_response(text=told.model_dump_json(by_alias=True))

    app = web.Application()
    app.add_routes([web.get("/progress", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    addresses = [f"127.94.64.{host}" for host in range(1, number + 1)]
    await asyncio.gather(*(web.TCPSite(runner, host, layout.TELEMETRY_PORT).start() for host in addresses))
    try:
        yield addresses
    finally:
        await runner.cleanup()
