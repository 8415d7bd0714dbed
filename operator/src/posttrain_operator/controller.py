"""The operator at work: what is seen becomes keys, keys become passes, and only the holder of the lease makes any."""

import asyncio
import gc
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from posttrain_operator import labels, metrics
from posttrain_operator.api.quantities import moment
from posttrain_operator.api.resources import KINDS, is_ours
from posttrain_operator.cache import Cache, family_of, version_of
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.dependents import Dependents
from posttrain_operator.errors import ApiUnavailable, Conflict
from posttrain_operator.kube import KubeCluster
from posttrain_operator.labels import Reason
from posttrain_operator.lease import Lease
from posttrain_operator.lists import UnknownKindError, refresh, sweep
from posttrain_operator.logs import about
from posttrain_operator.observe.raw import mapping, mappings, text
from posttrain_operator.observe.surroundings import PAIRS
from posttrain_operator.orphans import collect
from posttrain_operator.queue import WorkQueue
from posttrain_operator.reconcile import reconcile, tell_defect
from posttrain_operator.rest import Rest, load_configuration
from posttrain_operator.server_clock import ServerClock
from posttrain_operator.settings import Settings
from posttrain_operator.telemetry import Telemetry
from posttrain_operator.watched import CACHED, RESOURCES, Api

_WORKERS: Final = 8
"""As many as keep an API server busy; with more of them each write only waits longer for the others."""
_RESYNCS: Final = 5
"""Sweeps between two passes over everything that has not finished."""
_STUCK: Final = 120.0
"""Seconds with work to do and no pass that ended, after which the process had better be started anew."""
_RETRY: Final = 2.0
_GARBAGE: Final = 300.0
"""Seconds between two looks through the whole memory."""
_log = logging.getLogger(__name__)
Change = Literal["ADDED", "MODIFIED", "DELETED"] | None


@dataclass
class Controller:
    """One operator process."""

    settings: Settings
    cache: Cache = field(default_factory=Cache)
    queue: WorkQueue = field(default_factory=WorkQueue)
    dependents: Dependents = field(default_factory=Dependents)
    clock: ServerClock = field(default_factory=ServerClock)
    anew: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this one must be replaced: kinds that nobody watches have come into being."""
    ready: bool = False
    """Whether the whole cluster has been seen once."""
    _unknown: set[Api] = field(default_factory=set)
    """Kinds that the cluster did not know at the start; kopf looks for kinds only then."""
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    _workers: list[asyncio.Task[Any]] = field(default_factory=list)
    _last_pass: float = field(default_factory=time.monotonic)

    async def start(self) -> None:
        """Fills the cache and begins to stand by for the lease."""
        settings = self.settings
        configuration = await load_configuration()
        self.lease = Lease(
            Rest(configuration, clock=self.clock),
            settings.lease_namespace,
            settings.lease_name,
            identity=settings.identity,
        )
        self.rest = Rest(configuration, may_write=self.lease.check, clock=self.clock)
        telemetry = Telemetry(settings.progress_interval, news=self._changed)
        self.cluster = KubeCluster(self.rest, self.cache, telemetry, found=self._changed, wrote=self._wrote)
        self._spawn(self._stand_by(), "lease")
        self._spawn(self._sweep(), "sweep")
        self._spawn(_collect_garbage(), "garbage")

    async def stop(self) -> None:
        """Ends every task, and hands the lease over."""
        for task in (*self._tasks, *self._workers):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._workers, return_exceptions=True)
        try:
            await asyncio.wait_for(self.lease.release(), timeout=2)
        except Exception as error:  # noqa: BLE001 - it runs out by itself
            _log.warning("the lease was not handed over: %s", error)
        await self.cluster.telemetry.close()
        await self.rest.close()
        await self.lease.rest.close()

    def seen(self, change: Change, obj: Json) -> None:
        """Something was told of an object."""
        deleted = change == "DELETED"
        if self.cache.remove(Ref.of(obj), version_of(obj)) if deleted else self.cache.put(obj):
            self._changed(obj)

    def trouble(self) -> str | None:
        """What is wrong with this process, if anything is: the answer of the liveness probe."""
        ended = [task.get_name() for task in (*self._tasks, *self._workers) if task.done()]
        if ended:
            return f"ended: {', '.join(ended)}"
        idle = time.monotonic() - self._last_pass
        if self._workers and min(idle, self.queue.longest_wait) > _STUCK:
            return f"{len(self.queue)} objects wait and no pass has ended for {idle:.0f} s"
        return None

    def measure(self) -> None:
        """Brings the gauges up to date."""
        metrics.QUEUE_DEPTH.set(len(self.queue))
        metrics.QUEUE_WORKING.set(self.queue.at_work)
        metrics.CACHE_OBJECTS.set(len(self.cache))
        metrics.jobs((raw["kind"], _phase(raw) or "Pending") for raw in self._resources())
        metrics.progress_ages(_progress_ages(self._resources(), now=self.clock.now()))

    # Events.

    def _changed(self, obj: Json) -> None:
        """Something is new about an object: whoever it matters to gets a pass."""
        ref = Ref.of(obj)
        if is_ours(obj):
            if self.cache.get(ref) is None:
                self.dependents.gone(ref)
            else:
                self.dependents.seen(obj)
            self.queue.add(ref)
            keys = self._waiting_for(obj)
        elif (family := family_of(obj)) is not None:
            keys = (Ref(labels.API_VERSION, family[1], family[0], family[2]),)
        else:
            keys = self._concerned(obj)
        if ref.kind == "Pod" and self.cache.get(ref) is None:
            self.cluster.telemetry.forget(obj)
        self._add(keys)

    def _wrote(self, before: Json, after: Json) -> None:
        """The operator itself has changed a status: no event will tell the others as news."""
        metrics.attempts(after["kind"], [outcome for _, outcome in _outcomes(after) - _outcomes(before)])
        if _reason(before) != _reason(after):
            _log.info("%s: %s: %s", _phase(after), _reason(after), text(_ready(after).get("message")))
        self._add(self.dependents.of(Ref.of(after)))
        if _standing(before) != _standing(after):
            self._add(self._in_line(after))

    def _add(self, keys: Iterable[Ref]) -> None:
        for key in keys:
            if key.kind in KINDS:
                self.queue.add(key)

    def _waiting_for(self, obj: Json) -> Iterable[Ref]:
        """Those who read from an object, and those who stand behind it."""
        return (*self.dependents.of(Ref.of(obj)), *self._in_line(obj))

    def _in_line(self, obj: Json) -> Iterable[Ref]:
        """Those who may be next when an object that holds up a line of a queue has moved."""
        if obj["kind"] in PAIRS:
            yield from self._because(Reason.WAITING_FOR_TURN)

    def _because(self, reason: Reason, namespace: str = "") -> Iterable[Ref]:
        """The objects that wait for a reason; namespace "" means all."""
        for raw in self._resources():
            if namespace in ("", raw["metadata"]["namespace"]) and _reason(raw) == reason:
                yield Ref.of(raw)

    def _concerned(self, obj: Json) -> Iterable[Ref]:
        """Whom an object of somebody else concerns: a Workload its child's owner, a quota those who wait for it."""
        if obj["kind"] == "ResourceQuota":
            yield from self._because(Reason.QUOTA_EXCEEDED, obj["metadata"]["namespace"])
        for owner in obj["metadata"].get("ownerReferences") or ():
            child = self.cache.get(Ref(owner["apiVersion"], owner["kind"], obj["metadata"]["namespace"], owner["name"]))
            if child is not None and (family := family_of(child)) is not None:
                yield Ref(labels.API_VERSION, family[1], family[0], family[2])

    def _resources(self) -> Iterable[Json]:
        for api in RESOURCES:
            for ref in self.cache.refs(api.api_version, api.kind):
                if (raw := self.cache.get(ref)) is not None:
                    yield raw

    # Passes.

    async def _pass(self, key: Ref) -> None:
        """One pass over one object; whatever happens, the worker goes on."""
        began = time.perf_counter()
        raw = self.cache.get(key)
        with about(key, raw):
            outcome = await self._try(key)
        self._last_pass = time.monotonic()
        metrics.PASSES.labels(key.kind, outcome).observe(time.perf_counter() - began)

    async def _try(self, key: Ref) -> str:
        try:
            result = await reconcile(self.cluster, key, self.settings, now=self.clock.now())
        except ApiUnavailable as unavailable:
            _log.warning("%s", unavailable)
            self.queue.failed(key, at_least=unavailable.retry_after)
            return "unavailable"
        except Exception as error:  # noqa: BLE001 - a defect of ours must not stop the others
            _log.exception("a pass failed")
            await self._tell_defect(key, error)
            self.queue.failed(key)
            return "defect"
        self.queue.succeeded(key)
        if result.requeue_after is not None:
            self.queue.add_after(key, result.requeue_after)
        return "ok"

    async def _tell_defect(self, key: Ref, error: Exception) -> None:
        try:
            await tell_defect(self.cluster, key, error, now=self.clock.now())
        except Exception as second:  # noqa: BLE001 - the pass is tried again anyway
            _log.warning("the defect is not in the status: %s", second)

    # Tasks.

    async def _stand_by(self) -> None:
        await self._fill()
        if self.anew.is_set():
            return
        self.ready = True
        await self.lease.keep(self._began, self._ended)

    async def _began(self) -> None:
        """This process acts from now on: everything gets a pass."""
        self._last_pass = time.monotonic()
        for raw in self._resources():
            self.queue.add(Ref.of(raw))
        self._workers = [
            asyncio.get_running_loop().create_task(self.queue.work(self._pass), name=f"worker-{number}")
            for number in range(_WORKERS)
        ]

    def _ended(self) -> None:
        """Another process acts from now on."""
        for worker in self._workers:
            worker.cancel()
        self._workers = []

    async def _fill(self) -> None:
        """Sees the whole cluster once."""
        for api, namespace in self._lists():
            while True:
                try:
                    known = await refresh(self.rest, self.cache, api, namespace=namespace, changed=self._changed)
                    self._know(api, known=known)
                    break
                except ApiUnavailable as unavailable:
                    _log.warning("%s", unavailable)
                    if isinstance(unavailable, UnknownKindError):
                        self._unknown.add(api)
                    await asyncio.sleep(_RETRY)
        _log.info("%d objects seen", len(self.cache))

    async def _sweep(self) -> None:
        """Finds, every so often, what events missed; and looks at everything unfinished, more rarely."""
        turn = 0
        while True:
            await asyncio.sleep(self.settings.sweep_interval.total_seconds())
            turn += 1
            for api, namespace in self._lists():
                try:
                    known = await sweep(self.rest, self.cache, api, namespace=namespace, changed=self._missed)
                    self._know(api, known=known)
                except ApiUnavailable as unavailable:
                    _log.warning("%s", unavailable)
            await self._collect()
            if turn % _RESYNCS == 0:
                for raw in self._resources():
                    if not mapping(raw.get("status")).get("completionTime"):
                        self.queue.add(Ref.of(raw))

    def _know(self, api: Api, *, known: bool) -> None:
        """Remembers the kinds that are not there yet; when one has come, it must be watched."""
        if not known:
            self._unknown.add(api)
        elif api in self._unknown and api.watched:
            _log.info("the cluster knows %s of %s now: watching begins anew", api.kind, api.api_version)
            self.anew.set()

    async def _collect(self) -> None:
        """Deletes what is left of nobody."""
        try:
            if self.lease.held:
                await collect(self.cluster)
        except (ApiUnavailable, Conflict) as error:
            _log.warning("%s", error)

    def _lists(self) -> Iterable[tuple[Api, str]]:
        """Every list of which the cache is made: (kind, namespace)."""
        return ((api, namespace) for api in CACHED for namespace in self.settings.namespaces or ("",))

    def _missed(self, obj: Json) -> None:
        metrics.MISSED.labels(obj["kind"]).inc()
        self._changed(obj)

    def _spawn(self, work: Any, name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))


async def _collect_garbage() -> None:
    """See ``__main__``: by itself Python looks through what is young alone."""
    while True:
        await asyncio.sleep(_GARBAGE)
        gc.collect()


def _phase(raw: Json) -> str:
    return text(mapping(raw.get("status")).get("phase"))


def _reason(raw: Json) -> str:
    """The word of the Ready condition."""
    return text(_ready(raw).get("reason"))


def _ready(raw: Json) -> Json:
    """The Ready condition, read without the cost of the whole status."""
    conditions = mappings(mapping(raw.get("status")).get("conditions"))
    return next((condition for condition in conditions if condition.get("type") == "Ready"), {})


def _standing(raw: Json) -> tuple[int, set[Any]]:
    """What others in a line of a queue go by: attempts, and which conditions hold."""
    status = mapping(raw.get("status"))
    holding = {c.get("type") for c in mappings(status.get("conditions")) if c.get("status") == "True"}
    return len(mappings(status.get("attempts"))), holding


def _outcomes(raw: Json) -> set[tuple[Any, str]]:
    """The attempts of an object that have ended: (number, outcome)."""
    attempts = mappings(mapping(raw.get("status")).get("attempts"))
    return {(attempt.get("number"), outcome) for attempt in attempts if (outcome := text(attempt.get("outcome")))}


def _progress_ages(resources: Iterable[Json], *, now: datetime) -> dict[str, float]:
    """The age of the oldest progress of a running job, in seconds, by kind."""
    ages: dict[str, float] = {}
    for raw in resources:
        told = moment(mapping(mapping(raw.get("status")).get("progress")).get("updatedAt"))
        if told is not None and _phase(raw) == "Running":
            age = (now - told).total_seconds()
            ages[raw["kind"]] = max(age, ages.get(raw["kind"], 0.0))
    return ages
