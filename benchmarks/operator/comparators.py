"""Programs of others that are measured beside ours: a bare kopf handler, and the training operator."""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from support.api_client import ApiClient, Json, Server, unless
from support.operator_process import kubeconfig

from benchmarks.operator.load import (
    CONFIGMAPS,
    PODS,
    Arrival,
    Sender,
    Wave,
    burst,
    finetunejob,
    finetunejobs,
    fresh_names,
    of_job,
    of_pytorchjob,
    running,
    since_first,
    until,
    watching,
)
from benchmarks.operator.raw_writer import NAME, recorded

ROOT: Final = Path(__file__).resolve().parents[2]
_WARM_UP: Final = 20
_END: Final = 30.0
_CERTIFICATES: Final = Path("/tmp/k8s-webhook-server/serving-certs")  # noqa: S108 - where upstream looks for them
_WEBHOOK: Final = "training-operator-webhook-cert"
_VALIDATOR: Final = "validator.training-operator.kubeflow.org"


@dataclass(frozen=True)
class Peer:
    """A running program and where it works."""

    process: int
    client: ApiClient
    namespace: str

    async def configmap_wave(self, names: Sequence[str], arrival: Arrival) -> Wave:
        """FineTuneJobs of which each gets a ConfigMap."""

        async def post(name: str) -> None:
            await self.client.create(finetunejobs(self.namespace), finetunejob(name))

        sender = Sender(post)
        async with watching(self.client, CONFIGMAPS, of_job) as seen:
            await asyncio.sleep(1)
            await arrival(names, sender)
            await seen.wait(names, "ConfigMaps")
        return since_first(sender.sent, seen.first, max(seen.first[name] for name in names))

    async def pod_wave(self, names: Sequence[str], arrival: Arrival) -> Wave:
        """PyTorchJobs as ours of which each gets a pod."""
        path = f"/apis/kubeflow.org/v1/namespaces/{self.namespace}/pytorchjobs"
        recording = await recorded(self.namespace)
        pattern = next(write for write in recording if write.kind == "PyTorchJob")

        async def post(name: str) -> None:
            body: Json = json.loads(pattern.body.replace(NAME, name))
            body["metadata"] = {"name": name, "labels": body["metadata"]["labels"]}
            await self.client.create(path, body)

        sender = Sender(post)
        async with watching(self.client, PODS, of_pytorchjob) as seen:
            await asyncio.sleep(1)
            await arrival(names, sender)
            await seen.wait(names, "pods")
        return since_first(sender.sent, seen.first, max(seen.first[name] for name in names))


@asynccontextmanager
async def kopf_handler(
    folder: Path, server: Server, client: ApiClient, namespace: str, *, variant: str
) -> AsyncIterator[Peer]:
    """The bare handler at work; see ``kopf_handler``."""
    command = [sys.executable, "-m", "benchmarks.operator.kopf_handler", variant]
    with started(command, folder / f"kopf-{variant}", server) as process:
        peer = Peer(process, client, namespace)
        await peer.configmap_wave(fresh_names(_WARM_UP), burst)
        yield peer


@asynccontextmanager
async def training_operator(
    folder: Path, server: Server, client: ApiClient, namespace: str, *, program: Path, flags: Sequence[str] = ()
) -> AsyncIterator[Peer]:
    """The training operator at work, without its webhooks: nobody told the API server of them."""
    await unless(
        (409,), client.create("/api/v1/namespaces/" + namespace + "/secrets", {"metadata": {"name": _WEBHOOK}})
    )
    await unless(
        (409,),
        client.create(
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", {"metadata": {"name": _VALIDATOR}}
        ),
    )
    command = [
        str(program),
        "--enable-scheme=pytorchjob",
        "--metrics-bind-address=0",
        "--health-probe-bind-address=0",
        f"--webhook-server-port={free_port()}",
        "--zap-log-level=error",
        *flags,
    ]
    environment = {"MY_POD_NAMESPACE": namespace}
    with started(command, folder / "training-operator", server, environment) as process, _certificates():
        await _hand_over_certificates(client, namespace)
        peer = Peer(process, client, namespace)
        await peer.pod_wave(fresh_names(1), burst)
        yield peer


async def _hand_over_certificates(client: ApiClient, namespace: str) -> None:
    """Does what the kubelet does in a cluster: the program waits for the files of the Secret that it has filled."""
    secret: Json = {}

    def see(_: str, obj: Json) -> None:
        if obj["metadata"]["name"] == _WEBHOOK:
            secret.update(obj)

    async with running(client.observe(f"/api/v1/namespaces/{namespace}/secrets", see)):
        await until(lambda: "data" in secret, "the training operator to make its certificates")
    for name, content in secret["data"].items():
        (_CERTIFICATES / name).write_bytes(base64.b64decode(content))


@contextmanager
def _certificates() -> Iterator[None]:
    """The folder in which upstream looks for the pair of its webhooks."""
    _CERTIFICATES.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(_CERTIFICATES)


@contextmanager
def started(
    command: Sequence[str], folder: Path, server: Server, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A program until the end of the context; its log is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "kubeconfig"
    configuration.write_text(yaml.safe_dump(kubeconfig(server.url, server.token, server.authority)), "utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(configuration), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
