"""Two operators with one Lease, each with an identity, and a way to the API server, of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from posttrain_operator.settings import Settings
from support.arena import Arena
from support.fault_proxy import FaultProxy, Passed, fault_proxy
from support.operator_process import OperatorProcess, kubeconfig, operator_process
from support.waiting import wait_for

TAKE_OVER: Final = 20.0
"""Seconds in which another operator acts when the one that did is gone."""
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}"


@dataclass(frozen=True)
class Replica:
    """One of them."""

    operator: OperatorProcess
    proxy: FaultProxy

    def wrote(self, since: float = 0.0) -> list[Passed]:
        """Every change that it asked for since a moment of ``time.monotonic``, but for those of the Lease."""
        return [write for write in [*self.proxy.writes] if write.request.resource != "leases" and write.at >= since]

    def wait_standing_by(self) -> None:
        """Returns once it knows that it is not the one that acts."""
        wait_for(lambda: "posttrain_leader 0.0" in self.operator.page("/metrics"), "it to stand by")


@dataclass(frozen=True)
class Replicas:
    """The two of an arena."""

    run: Arena
    both: tuple[Replica, Replica]

    @property
    def holder(self) -> str:
        """The identity in the Lease."""
        lease = self.run.ask(_LEASES.format(self.run.namespace, Settings().lease_name))
        identity: str = lease["spec"]["holderIdentity"]
        return identity

    def by_turns(self) -> tuple[Replica, Replica]:
        """The one that acts, and the one that stands by."""
        one, other = self.both
        return (one, other) if one.operator.identity == self.holder else (other, one)

    def wait_taken_over(self, successor: Replica, since: float) -> float:
        """Returns once another acts, which must be in time, the moment of its first write."""
        wait_for(lambda: successor.wrote(since) != [], "the other operator to act", seconds=2 * TAKE_OVER)
        assert self.holder == successor.operator.identity
        first = successor.wrote(since)[0].at
        assert first - since <= TAKE_OVER
        return first


@contextmanager
def two_operators(run: Arena, folder: Path) -> Iterator[Replicas]:
    """A second operator beside that of an arena, which acts; the second stands by."""
    own = {"namespaces": run.namespace, "lease_namespace": run.namespace}
    with (
        fault_proxy(run.server.url, run.server.tls()) as proxy,
        operator_process(folder / f"{run.namespace}-second", kubeconfig(proxy.url, run.server.token), **own) as second,
    ):
        pair = Replicas(run, (Replica(run.operator, run.proxy), Replica(second, proxy)))
        assert pair.by_turns()[0] is pair.both[0]
        yield pair


def now() -> float:
    """The clock of ``Passed.at``."""
    return time.monotonic()
