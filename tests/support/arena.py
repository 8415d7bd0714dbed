"""One namespace with everything in it: the operator behind the fault proxy, the played parts, and a witness."""

import asyncio
import copy
import functools
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from posttrain_operator import labels
from posttrain_operator.api.resources import KINDS
from support.api_client import ApiClient, Json, Server
from support.fault_proxy import FaultProxy, fault_proxy
from support.faults import Rule
from support.kubelet import Life
from support.loop_thread import LoopThread
from support.operator_process import OperatorProcess, kubeconfig, operator_process
from support.players import Players, playing
from support.playground import Chronicle
from support.pod_lives import works
from support.scene import SPECS
from support.waiting import wait_for
from support.witness import Witness, witnessing

ONE_OF_EACH: Final = tuple((kind, "x") for kind in SPECS)
Jobs = tuple[tuple[str, str], ...]
"""(kind, name) of jobs that are alike but for their kind."""


@dataclass(frozen=True)
class Arena:
    """What a test acts on and looks at. Its own requests go past the proxy."""

    server: Server
    namespace: str
    proxy: FaultProxy
    operator: OperatorProcess
    players: Players
    witness: Witness
    _client: ApiClient
    _loop: LoopThread

    def submit(self, *jobs: tuple[str, str], run: Json | None = None) -> None:
        """A user creates jobs by kind and name, as fast as it goes."""

        async def work() -> None:
            await asyncio.gather(
                *(self._client.create(self._path(kind), self._job(kind, name, run)) for kind, name in jobs)
            )

        self._loop.call(work())

    def delete(self, kind: str, name: str) -> None:
        """A user deletes a job."""
        self._loop.call(self._client.delete(f"{self._path(kind)}/{name}"))

    def ask(self, path: str) -> Json:
        """Gets a path from the API server."""
        return self._loop.call(self._client.get(path))

    def wait_finished(self, number: int, *, seconds: float = 120) -> None:
        """Returns once so many jobs have ended."""
        try:
            wait_for(lambda: self.witness.finished(number), f"{number} jobs to end", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; they are {dict(self.witness.outcomes())}") from None

    def wait_equal(self, expected: "Outcome", *, seconds: float = 120, pods: bool = True) -> None:
        """Returns once everything is as after another run: objects, owners, specs, statuses, and counts.

        Without ``pods`` it does not matter how many of those there were: others make them.
        """
        wanted = expected if pods else expected.without_pods()
        jobs = sum("status" in form for form in wanted.objects.values())

        def equal() -> bool:
            # The comparison takes a second where there are many jobs, so it waits until they have ended.
            return self.witness.finished(jobs) and self.outcome(pods=pods) == wanted

        try:
            wait_for(equal, "the outcome of the other run", seconds=seconds)
        except AssertionError as error:
            differences = list(_differences(self.outcome(pods=pods).parts(), wanted.parts()))
            if differences:
                raise AssertionError(f"{error}; there still differ:\n{chr(10).join(differences[:40])}") from None

    def outcome(self, *, pods: bool = True) -> "Outcome":
        found = Outcome(self.witness.normal_form(), self.witness.made())
        return found if pods else found.without_pods()

    def _path(self, kind: str) -> str:
        return f"/apis/{labels.API_VERSION}/namespaces/{self.namespace}/{KINDS[kind].plural}"

    def _job(self, kind: str, name: str, run: Json | None) -> Json:
        spec = {**copy.deepcopy(SPECS[kind]), **({"run": run} if run else {})}
        return {"apiVersion": labels.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


@dataclass(frozen=True)
class Outcome:
    """What is left of a run, comparable with that of another."""

    objects: Json
    """See ``Witness.normal_form``."""
    made: Counter[str]
    """How often each child was made, pods included."""

    def without_pods(self) -> "Outcome":
        return Outcome(self.objects, Counter({what: n for what, n in self.made.items() if not what.startswith("Pod ")}))

    def parts(self) -> Json:
        return {**self.objects, "made": dict(self.made)}


@contextmanager
def arena(server: Server, folder: Path, *rules: Rule, life: Life = works, **settings: str) -> Iterator[Arena]:
    """Everything is running and ready; the namespace stays behind, for whoever wants to look.

    It fails at its end, too, when any status was seen that must not be.
    """
    namespace = f"arena-{secrets.token_hex(4)}"
    own = {"namespaces": namespace, "lease_namespace": namespace}
    chronicle = Chronicle()
    with _user(server) as (client, loop):
        loop.call(_make_namespace(client, namespace))
        with (
            fault_proxy(server.url, server.tls(), *rules) as proxy,
            playing(server, namespace, life) as players,
            witnessing(server, namespace, chronicle),
            operator_process(folder / namespace, kubeconfig(proxy.url, server.token), **own, **settings) as operator,
        ):
            yield Arena(server, namespace, proxy, operator, players, chronicle, client, loop)
            assert chronicle.illegal == []


@functools.cache
def undisturbed(server: Server, jobs: Jobs = ONE_OF_EACH, life: Life = works) -> tuple[Outcome, Counter[str]]:
    """How jobs end when nothing goes wrong, and the requests that it took."""
    with tempfile.TemporaryDirectory() as folder, arena(server, Path(folder), life=life) as run:
        run.submit(*jobs)
        run.wait_finished(len(jobs))
        wait_for(lambda: not run.witness.lingering(), "servers to be deleted")
        return run.outcome(), run.proxy.counts


@contextmanager
def _user(server: Server) -> Iterator[tuple[ApiClient, LoopThread]]:
    async def client() -> ApiClient:
        return ApiClient(server)

    with LoopThread("user") as loop:
        user = loop.call(client())
        try:
            yield user, loop
        finally:
            loop.call(user.close())


async def _make_namespace(client: ApiClient, name: str) -> None:
    await client.create("/api/v1/namespaces", {"metadata": {"name": name}})
    await client.until_there(f"/api/v1/namespaces/{name}/serviceaccounts/default")


def _differences(found: object, expected: object, where: str = "") -> Iterator[str]:
    """A line for every part of two objects that differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from _differences(found.get(key, "nothing"), expected.get(key, "nothing"), f"{where}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differences(one, other, f"{where}[{index}]")
    elif found != expected:
        yield f"{where.lstrip('.')}: {str(found)[:300]}, expected {str(expected)[:300]}"
