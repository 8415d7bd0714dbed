"""A bare kopf operator that makes one ConfigMap a FineTuneJob.

``python -m benchmarks.operator.kopf_handler create|event``: ``create`` is the handler that kopf's own pages show first;
``event`` asks kopf for less, as this project does.
"""

import asyncio
import sys
from typing import Any, Final

import aiohttp
import kopf
from posttrain_operator import labels

_RESOURCE: Final = (labels.GROUP, labels.VERSION, "finetunejobs")


class _Maker:
    """Speaks to the API server that kopf found."""

    session: aiohttp.ClientSession
    server: str

    async def start(self, *, settings: kopf.OperatorSettings, **_: Any) -> None:
        connection = kopf.login_with_kubeconfig(settings=settings)
        if connection is None:
            raise kopf.PermanentError("KUBECONFIG names no cluster")
        self.server = connection.server
        connector = aiohttp.TCPConnector(ssl=connection.as_ssl_context())
        headers = {"Authorization": f"Bearer {connection.token}"}
        self.session = aiohttp.ClientSession(connector=connector, headers=headers)

    async def stop(self, **_: Any) -> None:
        await self.session.close()

    async def make(self, *, name: str, namespace: str | None, uid: str, **_: Any) -> None:
        owner = {"apiVersion": labels.API_VERSION, "kind": "FineTuneJob", "name": name, "uid": uid}
        metadata = {"name": name, "labels": {labels.NAME: name}, "ownerReferences": [owner]}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"stage": "{}"}}
        url = f"{self.server}/api/v1/namespaces/{namespace}/configmaps"
        async with self.session.post(url, json=body) as answer:
            if answer.status not in (201, 409):
                answer.raise_for_status()
            await answer.read()

    async def see(self, *, type: str | None, **event: Any) -> None:  # noqa: A002 - kopf's name
        if type in {None, "ADDED"}:  # None: it was there before this program
            await self.make(**event)


def main(variant: str) -> None:
    """Runs until it is told to end."""
    registry, maker = kopf.OperatorRegistry(), _Maker()
    kopf.on.startup(registry=registry)(maker.start)
    kopf.on.cleanup(registry=registry)(maker.stop)
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    if variant == "create":
        kopf.on.create(*_RESOURCE, registry=registry)(maker.make)
    else:
        kopf.on.event(*_RESOURCE, registry=registry)(maker.see)
    asyncio.run(kopf.operator(registry=registry, standalone=True, clusterwide=True))


if __name__ == "__main__":
    main(sys.argv[1])
