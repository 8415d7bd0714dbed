"""Where the operator is measured: one control plane without nodes, and two namespaces."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from posttrain_operator import labels
from posttrain_operator.settings import Settings
from support.api_client import ApiClient, Server, unless
from support.control_plane import ControlPlane
from support.tools import find_tools

from benchmarks.operator.load import at_once, finetunejobs

TEAM: Final = "team"
OTHER_TEAM: Final = "other-team"


@dataclass(frozen=True)
class Ground:
    """One control plane, and a client with every right."""

    folder: Path
    server: Server
    client: ApiClient
    programs: Path
    pids: Mapping[str, int]

    async def clean(self) -> None:
        """Deletes everything that was made in the namespaces."""
        for collection in [path for namespace in (TEAM, OTHER_TEAM) for path in _collections(namespace)]:
            found = (await self.client.get(collection))["items"]
            path = collection.partition("?")[0]
            # Not all in one request: the API server deletes them one by one, and gives up after a minute.
            await at_once([f"{path}/{obj['metadata']['name']}" for obj in found], self._delete)

    async def _delete(self, path: str) -> None:
        await unless((404,), self.client.delete(path, gracePeriodSeconds=0, propagationPolicy="Background"))


def _collections(namespace: str) -> list[str]:
    return [
        finetunejobs(namespace),
        f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs",
        *(f"/api/v1/namespaces/{namespace}/{plural}" for plural in ("pods", "services", "events")),
        f"/api/v1/namespaces/{namespace}/configmaps?labelSelector={labels.NAME}",
    ]


@asynccontextmanager
async def ground(folder: Path) -> AsyncIterator[Ground]:
    """A fresh control plane whose etcd waits for the disk, until the end of the context."""
    with ControlPlane(folder / "control-plane", find_tools(), durable=True) as plane:
        access = plane.access
        server = Server(access.url, access.admin_token, access.ca_file)
        client = ApiClient(server)
        try:
            for namespace in (TEAM, OTHER_TEAM, Settings.lease_namespace):
                await client.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
            for namespace in (TEAM, OTHER_TEAM) if access.controllers else ():
                await client.until_there(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
            yield Ground(folder, server, client, access.programs, access.pids)
        finally:
            await client.close()
