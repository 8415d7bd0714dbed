"""A namespace with the operator at work, where each job of a test file lives a life of its own."""

import copy
import itertools
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from posttrain_operator import labels
from posttrain_operator.api.status import Status
from posttrain_operator.cluster import Json, Ref
from support.api import Api
from support.api_client import Server
from support.control_plane import Access, fresh_namespace
from support.kstatus import IllegalStatusError, StatusFollower, kstatus
from support.kubelet import Life, PlayedPod
from support.operator_process import OperatorProcess, kubeconfig, operator_process
from support.players import Players, playing
from support.pod_lives import works
from support.scene import SPECS
from support.waiting import wait_for
from support.witness import Witness, witnessing

SECONDS: Final = 60.0
MAIN_KINDS: Final = ("Job", "PyTorchJob")


class Chronicle(Witness):
    """What a witness sees, in its order; and whether any job ever said what must not be said."""

    def __init__(self) -> None:
        super().__init__()
        self.illegal: list[str] = []
        """What no status may say, and what none may say after the one before."""
        self.log: list[tuple[str, Json]] = []
        """Every event of every watch."""
        self.families: defaultdict[str, dict[str, Json]] = defaultdict(dict)
        """What there is of each owner's, by the owner's uid and its own."""
        self._follower = StatusFollower()

    def see(self, event: str, obj: Json) -> None:
        self.log.append((event, obj))
        if obj["apiVersion"] == labels.API_VERSION and event != "DELETED":
            try:
                self._follower.see(obj)
            except (IllegalStatusError, TypeError, KeyError, AttributeError) as error:  # some are garbled by a test
                self.illegal.append(f"{type(error).__name__}: {error}")
        uid = obj["metadata"]["uid"]
        if (before := self.present.get(uid)) is not None:
            self.families[_owner(before)].pop(uid, None)  # its owner may have been taken off
        super().see(event, obj)
        if uid in self.present:
            self.families[_owner(obj)][uid] = obj


@dataclass(frozen=True)
class PlayedJob:
    """One object of the four kinds, as it was seen last at the API server."""

    ref: Ref
    uid: str
    api: Api
    chronicle: Chronicle

    @property
    def raw(self) -> Json:
        return self.chronicle.present[self.uid]

    @property
    def exists(self) -> bool:
        return self.uid in self.chronicle.present

    @property
    def status(self) -> Status:
        return self.chronicle.statuses[self.uid][-1]

    @property
    def state(self) -> tuple[str | None, str]:
        """The phase and the reason."""
        ready = self.status.condition("Ready")
        return self.status.phase, ready.reason if ready is not None else ""

    @property
    def message(self) -> str:
        ready = self.status.condition("Ready")
        return ready.message if ready is not None else ""

    @property
    def kstatus(self) -> str:
        """What kstatus makes of it."""
        return kstatus(self.raw)

    @property
    def attempts(self) -> list[str]:
        """What is on record of each attempt: number, outcome, exit status and reason, as far as there are any."""
        told = [(a.number, a.outcome, a.exit_code, a.reason) for a in self.status.attempts]
        return [" ".join(str(word) for word in words if word is not None) for words in told]

    @property
    def children(self) -> list[Json]:
        """What the operator made for it and is there."""
        return [*self.chronicle.families[self.uid].values()]

    @property
    def pods(self) -> list[Json]:
        uids = {child["metadata"]["uid"] for child in self.children}
        present = [*self.chronicle.present.values()]
        return [obj for obj in present if obj["kind"] == "Pod" and (_owner(obj) in uids or self._names(obj))]

    @property
    def remains(self) -> list[str]:
        """Whatever there is of it: the object itself, its children and their pods."""
        own = [self.raw] if self.exists else []
        return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in (*own, *self.children, *self.pods)]

    @property
    def made(self) -> list[str]:
        """Every workload that was ever made for it, in order, as KIND/NAME without the job's own name."""
        births = [birth for birth in [*self.chronicle.births] if _owner(birth) == self.uid]
        kinds = ("Job", "PyTorchJob", "StatefulSet")
        return [f"{b['kind']}{b['metadata']['name'].removeprefix(self.ref.name)}" for b in births if b["kind"] in kinds]

    @property
    def history(self) -> list[Status]:
        """Every status that was seen, without repetitions."""
        return [*self.chronicle.statuses[self.uid]]

    @property
    def main_ended(self) -> bool:
        """Whether the newest of its children whose ends are those of attempts has ended, or is gone."""
        mains = [child for child in self.children if child["kind"] in MAIN_KINDS]
        newest = max(mains, key=lambda child: int(child["metadata"]["labels"][labels.ATTEMPT]), default=None)
        holding = {c["type"] for c in (newest or {}).get("status", {}).get("conditions", []) if c["status"] == "True"}
        return newest is None or bool(holding & {"Failed", "Succeeded", "Complete"})

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float = SECONDS) -> None:
        """Returns once the condition holds; a failure tells how the job is."""
        try:
            wait_for(condition, f"{self.ref} to {what}", seconds=seconds)
        except AssertionError as error:
            told = f"{self.state} {self.message!r} {self.attempts}" if self.exists else "it is gone"
            raise AssertionError(f"{error}: {told}") from None

    def reach(self, phase: str, reason: str = "", *, attempt: int = 0, seconds: float = SECONDS) -> None:
        """Returns once it is in a phase, for a reason, with so many attempts on record."""

        def reached() -> bool:
            return self.state == (phase, reason or self.state[1]) and (
                not attempt or len(self.status.attempts) == attempt
            )

        words = f"be {phase}{f' ({reason})' if reason else ''}{f' in attempt {attempt}' if attempt else ''}"
        self.wait(reached, words, seconds=seconds)

    def finish(self, phase: str = "Succeeded", reason: str = "", *, seconds: float = SECONDS) -> None:
        """Returns once it has ended, which must be in this phase and for this reason."""
        self.wait(lambda: self.status.finished, "end", seconds=seconds)
        assert self.state == (phase, reason or phase), (self.message, self.attempts)

    def edit(self, **run: Any) -> None:
        """Its user changes ``spec.run``."""
        self.api.patch(self.ref, {"spec": {"run": run}})

    def delete(self) -> None:
        """Its user deletes it."""
        self.api.delete(self.ref)

    def events(self) -> list[Json]:
        """What people were told of it, in order."""
        told = [
            event
            for event in self.api.list("v1", "Event", self.ref.namespace)
            if event["involvedObject"].get("uid") == self.uid
        ]
        return sorted(told, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def _names(self, pod: Json) -> bool:
        """Whether a pod carries its name; no two jobs of a test file have the same."""
        own = pod["metadata"].get("labels") or {}
        return (own.get(labels.KIND), own.get(labels.NAME)) == (self.ref.kind, self.ref.name)


@dataclass
class Playground:
    """What a test acts on. Its own requests go past the operator."""

    namespace: str
    api: Api
    operator: OperatorProcess
    players: Players
    chronicle: Chronicle
    lives: dict[tuple[str, str], Life]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def submit(
        self, kind: str = "FineTuneJob", life: Life = works, *, name: str = "", run: Json | None = None, **spec: Any
    ) -> PlayedJob:
        """A user creates a job; its pods live as ``life`` says."""
        name = name or f"job{next(self._numbers)}"
        self.lives[kind, name] = life
        whole = {**copy.deepcopy(SPECS[kind]), **spec, **({"run": run} if run else {})}
        obj = {"apiVersion": labels.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": whole}
        created = self.api.create(obj, namespace=self.namespace)
        job = PlayedJob(Ref.of(created), created["metadata"]["uid"], self.api, self.chronicle)
        wait_for(lambda: job.history != [], f"{job.ref} to be seen", seconds=SECONDS)
        return job

    def name(self) -> str:
        """A name that no other job has."""
        return f"job{next(self._numbers)}"

    def restart(self) -> None:
        """The operator is killed and started anew."""
        self.operator.kill()
        self.revive()

    def revive(self) -> None:
        """The operator is started after it was killed."""
        self.operator.start()
        self.operator.wait_ready()


@contextmanager
def playground(
    access: Access, api: Api, folder: Path, *, connection: Mapping[str, object] | None = None, **settings: str
) -> Iterator[Playground]:
    """Everything is running and ready. Whatever does not ask for the clock is told by events: no poll is near.

    ``connection`` is the operator's kubeconfig, unless it is an administrator.
    """
    server = Server(access.url, access.admin_token, access.ca_file)
    lives: dict[tuple[str, str], Life] = {}
    chronicle = Chronicle()
    with (
        fresh_namespace(access, api) as namespace,
        playing(server, namespace, partial(_live, lives)) as players,
        witnessing(server, namespace, chronicle),
        operator_process(
            folder / f"operator-{secrets.token_hex(3)}",
            connection or kubeconfig(server.url, server.token, server.authority),
            **{
                "namespaces": namespace,
                "lease_namespace": namespace,
                "first_backoff": "1s",
                "progress_interval": "1h",
                "sweep_interval": "1h",
                **settings,
            },
        ) as operator,
    ):
        yield Playground(namespace, api, operator, players, chronicle, lives)


async def _live(lives: dict[tuple[str, str], Life], pod: PlayedPod) -> None:
    await lives.get((pod.kind, pod.job), works)(pod)


def _owner(obj: Json) -> str:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")
