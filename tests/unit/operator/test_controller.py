"""The operator at work: who gets a pass because of what, what becomes of a pass, and how the process says how it is."""

import asyncio
import gc
import getpass
import logging
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from posttrain_operator import __main__ as program
from posttrain_operator import controller as controller_module
from posttrain_operator import handlers, labels, metrics
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.controller import Controller
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.handlers import operate
from posttrain_operator.kube import KubeCluster
from posttrain_operator.labels import API_VERSION, Reason
from posttrain_operator.probes import serve
from posttrain_operator.queue import WorkQueue
from posttrain_operator.reconcile import Outcome
from posttrain_operator.rest import Rest
from posttrain_operator.settings import Settings
from posttrain_operator.telemetry import Telemetry
from support.operator_process import kubeconfig
from support.paged_api import PagedApi
from support.scripted_server import Handler, serving

DATA = {"uri": "pvc://data/x"}
VERSIONS = iter(range(10, 1_000_000))


class Nowhere(Rest):
    """No API server."""

    def __init__(self) -> None:
        """Connects to nothing."""


def controller(**settings: Any) -> Controller:
    """A process that sees what it is told, and never asks."""
    made = Controller(Settings(**settings))
    telemetry = Telemetry(timedelta(seconds=10), news=made._changed)
    made.cluster = KubeCluster(Nowhere(), made.cache, telemetry, found=made._changed, wrote=made._wrote)
    return made


def obj(kind: str, name: str, *, namespace: str = "team", uid: str = "", **parts: Any) -> Json:
    api_version = {"Pod": "v1", "ResourceQuota": "v1", "Job": "batch/v1", "Workload": "kueue.x-k8s.io/v1beta2"}
    version = str(next(VERSIONS))
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-of-{name}", "resourceVersion": version}
    metadata |= parts.pop("metadata", {})
    return {"apiVersion": api_version.get(kind, API_VERSION), "kind": kind, "metadata": metadata, **parts}


def owned(kind: str, name: str, owner: str, **parts: Any) -> Json:
    own = {labels.KIND: "FilterJob", labels.NAME: owner}
    return obj(kind, name, metadata={"labels": own}, **parts)


def because(reason: str) -> Json:
    return {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]}


def keys(at: Controller) -> list[str]:
    """Who waits for a pass, emptied."""
    waiting = [f"{ref.namespace}/{ref}" for ref in at.queue._waiting]
    at.queue = WorkQueue()
    return sorted(waiting)


# Who gets a pass.


def test_what_is_told_of_an_object_brings_it_a_pass_once() -> None:
    at = controller()
    told = obj("FilterJob", "x", spec={})
    at.seen("ADDED", told)
    at.seen("MODIFIED", told)
    at.seen(None, told)
    assert keys(at) == ["team/FilterJob/x"]
    at.seen("MODIFIED", told)
    assert keys(at) == [], "it is known"


def test_its_readers_get_one_too_also_when_it_ends() -> None:
    at = controller()
    reader = obj("FineTuneJob", "sft", spec={"model": DATA, "dataset": {"from": "FilterJob/x"}})
    at.seen("ADDED", reader)
    keys(at)
    at.seen("ADDED", obj("FilterJob", "x", spec={}))
    assert keys(at) == ["team/FilterJob/x", "team/FineTuneJob/sft"]
    at.seen("DELETED", obj("FilterJob", "x", spec={}))
    assert keys(at) == ["team/FilterJob/x", "team/FineTuneJob/sft"]
    at.seen("DELETED", {**reader, "metadata": obj("FineTuneJob", "sft")["metadata"]})
    assert keys(at) == ["team/FineTuneJob/sft"]
    at.seen("ADDED", obj("FilterJob", "x", spec={}))
    assert keys(at) == ["team/FilterJob/x"], "who is gone reads no more"


def test_our_own_write_brings_the_readers_a_pass_though_its_event_is_no_news() -> None:
    at = controller()
    at.seen("ADDED", obj("FineTuneJob", "sft", spec={"model": DATA, "dataset": {"from": "FilterJob/x"}}))
    before = obj("FilterJob", "x", spec={})
    at.seen("ADDED", before)
    keys(at)
    after = obj("FilterJob", "x", spec={}, status=because("Succeeded"))
    at.cache.put(after)
    at._wrote(before, after)
    assert keys(at) == ["team/FineTuneJob/sft"]
    at.seen("MODIFIED", after)
    assert keys(at) == []


@pytest.mark.parametrize("kind", ["Pod", "Job"])
def test_a_child_or_a_pod_brings_its_object_a_pass(kind: str) -> None:
    at = controller()
    child = owned(kind, "x-1", "x", spec={}, status={})
    at.seen("ADDED", child)
    assert keys(at) == ["team/FilterJob/x"]
    at.seen("DELETED", owned(kind, "x-1", "x"))
    assert keys(at) == ["team/FilterJob/x"]


@pytest.mark.parametrize("kind", ["Pod", "", "filterjob", "FilterJob/x"])
def test_a_label_that_names_no_kind_of_ours_brings_nobody_one(kind: str) -> None:
    at = controller()
    at.seen("ADDED", obj("Pod", "p", metadata={"labels": {labels.KIND: kind, labels.NAME: "x"}}, spec={}))
    assert keys(at) == []


def test_a_workload_brings_the_object_of_its_child_a_pass() -> None:
    at = controller()
    at.seen("ADDED", owned("Job", "x-1", "x", spec={}))
    keys(at)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "x-1", "uid": "uid-of-x-1"}
    at.seen("ADDED", obj("Workload", "w", metadata={"ownerReferences": [owner]}, spec={}))
    assert keys(at) == ["team/FilterJob/x"]
    at.seen("ADDED", obj("Workload", "v", metadata={"ownerReferences": [{**owner, "name": "y"}]}, spec={}))
    assert keys(at) == []


def test_a_quota_brings_those_a_pass_that_wait_for_it() -> None:
    at = controller()
    at.seen("ADDED", obj("FilterJob", "waits", status=because(Reason.QUOTA_EXCEEDED)))
    at.seen("ADDED", obj("FilterJob", "runs", status=because(Reason.RUNNING)))
    at.seen("ADDED", obj("FilterJob", "far", namespace="other", status=because(Reason.QUOTA_EXCEEDED)))
    at.seen("ADDED", obj("FilterJob", "garbled", status={"conditions": "text"}))
    keys(at)
    at.seen("MODIFIED", obj("ResourceQuota", "q", spec={}))
    assert keys(at) == ["team/FilterJob/waits"]


def test_who_moves_in_a_line_brings_those_behind_a_pass() -> None:
    at = controller()
    at.seen("ADDED", obj("RLJob", "behind", namespace="other", status=because(Reason.WAITING_FOR_TURN)))
    admitted = {"conditions": [{"type": "Admitted", "status": "True"}]}
    before, after = obj("RLJob", "first"), obj("RLJob", "first", status=admitted)
    at.seen("ADDED", before)
    keys(at)
    at.cache.put(after)
    at._wrote(before, after)
    assert keys(at) == ["other/RLJob/behind"]
    at._wrote(after, {**after, "status": {**admitted, "progress": {"step": 1}}})
    assert keys(at) == [], "progress moves nobody"
    at.seen("DELETED", obj("RLJob", "first"))
    assert keys(at) == ["other/RLJob/behind", "team/RLJob/first"]


def test_of_a_pod_that_is_gone_no_progress_is_kept() -> None:
    async def scenario() -> None:
        at = controller()
        pod = owned("Pod", "x-1", "x", spec={})
        at.seen("ADDED", pod)
        await at.cluster.progress(pod)
        assert len(at.cluster.telemetry._pods) == 1
        at.seen("MODIFIED", owned("Pod", "x-1", "x", spec={}))
        assert len(at.cluster.telemetry._pods) == 1
        at.seen("DELETED", owned("Pod", "x-1", "x", spec={}))
        assert at.cluster.telemetry._pods == {}

    asyncio.run(scenario())


def test_what_a_pod_tells_anew_brings_its_object_a_pass() -> None:
    at = controller()
    pod = owned("Pod", "x-1", "x", spec={})
    at.seen("ADDED", pod)
    keys(at)
    at.cluster.telemetry.news(pod)
    assert keys(at) == ["team/FilterJob/x"]


def test_attempts_that_end_are_counted_once() -> None:
    def count() -> float:
        told = {"kind": "FilterJob", "outcome": "Preempted"}
        return metrics.REGISTRY.get_sample_value("posttrain_attempts_total", told) or 0.0

    at, before = controller(), count()
    first = {"number": 1, "outcome": "Preempted"}
    objects = [
        obj("FilterJob", "x", status={"attempts": attempts})
        for attempts in ([], [{"number": 1}], [first], [first, {"number": 2}], [first, {**first, "number": 2}], "text")
    ]
    for earlier, later in pairwise(objects):
        at._wrote(earlier, later)
    assert count() - before == 2


# What becomes of a pass.

KEY = Ref(API_VERSION, "FilterJob", "team", "x")


def passed(monkeypatch: pytest.MonkeyPatch, result: Outcome | Exception) -> tuple[WorkQueue, float]:
    """The queue after a pass with this result, and the seconds until the next one."""

    async def reconcile(*_: Any, **__: Any) -> Outcome:
        if isinstance(result, Exception):
            raise result
        return result

    async def scenario() -> tuple[WorkQueue, float]:
        at = controller()
        at.queue._failures[KEY] = 3
        await at._pass(KEY)
        timer = at.queue._timers.get(KEY)
        return at.queue, timer.when() - asyncio.get_running_loop().time() if timer is not None else -1.0

    monkeypatch.setattr(controller_module, "reconcile", reconcile)
    return asyncio.run(scenario())


def test_a_pass_says_when_to_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, pause = passed(monkeypatch, Outcome(timedelta(seconds=30)))
    assert 20 < pause <= 30
    assert not queue._failures


def test_a_pass_that_waits_for_a_change_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, pause = passed(monkeypatch, Outcome())
    assert pause == -1.0
    assert len(queue) == 0


def test_an_api_server_that_is_away_costs_a_longer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, pause = passed(monkeypatch, ApiUnavailable("503", retry_after=timedelta(seconds=100)))
    assert 90 < pause <= 125
    assert queue._failures == {KEY: 4}


def test_a_defect_is_logged_and_tried_again_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        queue, pause = passed(monkeypatch, KeyError("a defect"))
    assert 0 < pause <= 1.6 * 1.25
    assert queue._failures == {KEY: 4}
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("status", ["text", [], 7, {"attempts": "text", "conditions": 3, "phase": []}])
def test_a_garbled_status_ends_no_worker_and_no_page(status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reconcile(*_: Any, **__: Any) -> Outcome:
        return Outcome()

    async def scenario() -> None:
        at = controller()
        at.seen("ADDED", obj("FilterJob", "x", status=status))
        at.measure()
        await at._pass(KEY)
        at._wrote(obj("FilterJob", "x", status=status), obj("FilterJob", "x"))

    monkeypatch.setattr(controller_module, "reconcile", reconcile)
    asyncio.run(scenario())


# How the process is.


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the thing under test tells nobody
            await asyncio.sleep(0.01)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def acting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Controller, Clock, asyncio.Event]]:
    """A process that acts, in a time of its own, whose passes wait for a word."""
    clock, go = Clock(), asyncio.Event()

    async def reconcile(*_: Any, **__: Any) -> Outcome:
        await go.wait()
        return Outcome()

    monkeypatch.setattr(controller_module, "reconcile", reconcile)
    monkeypatch.setattr(controller_module, "time", SimpleNamespace(monotonic=clock, perf_counter=time.perf_counter))
    at = controller()
    at.queue = WorkQueue(clock=clock)
    await at._began()
    try:
        yield at, clock, go
    finally:
        workers = at._workers
        at._ended()
        await asyncio.gather(*workers, return_exceptions=True)


def add(at: Controller, number: int) -> None:
    for name in range(number):
        at.queue.add(Ref(API_VERSION, "FilterJob", "team", f"n{name}"))


def test_work_that_nobody_does_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with acting(monkeypatch) as (at, clock, _):
            add(at, 100)
            await asyncio.sleep(0)
            clock.now += 119
            assert at.trouble() is None
            clock.now += 2
            assert at.trouble() == f"{100 - controller_module._WORKERS} objects wait and no pass has ended for 121 s"

    asyncio.run(run())


def test_much_work_is_no_trouble_while_passes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with acting(monkeypatch) as (at, clock, go):
            go.set()
            for _ in range(10):
                add(at, 100)
                await asyncio.sleep(0)
                clock.now += 100
                assert at.trouble() is None
                await until(lambda: len(at.queue) == 0)

    asyncio.run(run())


def test_new_work_after_a_long_rest_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with acting(monkeypatch) as (at, clock, _):
            clock.now += 3600
            assert at.trouble() is None
            add(at, 1000)
            assert at.trouble() is None

    asyncio.run(run())


def test_what_waits_while_another_acts_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with acting(monkeypatch) as (at, clock, _):
            at._ended()
            await asyncio.sleep(0)
            add(at, 1000)
            clock.now += 3600
            assert at.trouble() is None
            await at._began()
            assert at.trouble() is None, "it has only just begun"
            clock.now += 121
            assert at.trouble() is not None

    asyncio.run(run())


def test_a_worker_that_ended_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with acting(monkeypatch) as (at, _, __):
            at._workers[3].cancel()
            await asyncio.sleep(0)
            assert at.trouble() == "ended: worker-3"

    asyncio.run(run())


def test_a_task_that_ended_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect() -> None:
        raise KeyError("a defect")

    async def run() -> None:
        async with acting(monkeypatch) as (at, _, __):
            at._spawn(defect(), "sweep")
            await until(at._tasks[0].done)
            assert at.trouble() == "ended: sweep"
            assert isinstance(at._tasks[0].exception(), KeyError)

    asyncio.run(run())


def test_the_probes_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with acting(monkeypatch) as (at, _, __), probed(at) as ask:
            assert await ask("/healthz") == (200, "ok")
            assert await ask("/readyz") == (503, "filling")
            at.ready = True
            assert await ask("/readyz") == (200, "ok")
            at.seen("ADDED", obj("FilterJob", "x", status={"phase": "Running"}))
            at.seen("ADDED", obj("FilterJob", "y", status={}))
            code, page = await ask("/metrics")
            assert code == 200
            assert 'posttrain_jobs{kind="FilterJob",phase="Running"} 1.0' in page
            assert 'posttrain_jobs{kind="FilterJob",phase="Pending"} 1.0' in page
            assert "posttrain_cache_objects 2.0" in page
            at._workers[0].cancel()
            await asyncio.sleep(0)
            assert await ask("/healthz") == (500, "ended: worker-0")

    asyncio.run(run())


@asynccontextmanager
async def probed(at: Controller) -> AsyncIterator[Callable[[str], Coroutine[Any, Any, tuple[int, str]]]]:
    runner = await serve(at, port=0)
    port = next(address[1] for address in runner.addresses if len(address) == 2)  # the others are IPv6

    async def ask(path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()

    try:
        yield ask
    finally:
        await runner.cleanup()


# A process from its beginning to its end.


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], Any]:
    """Leads KUBECONFIG to an API server in this test."""
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(controller_module, "_RETRY", 0.01)

    @asynccontextmanager
    async def at(handler: Handler) -> AsyncIterator[None]:
        async with serving(handler) as url:
            file.write_text(yaml.safe_dump(kubeconfig(url, "token")), "utf-8")
            yield

    return at


def test_it_is_ready_once_everything_was_seen(cluster: Callable[[Handler], Any]) -> None:
    async def run() -> None:
        api = PagedApi()
        api.put(obj("FilterJob", "x", spec={}))
        api.put(owned("Pod", "p", "x", spec={}))
        api.refused = {"ResourceQuota": 403, "PyTorchJob": 404, "Lease": 403}
        async with cluster(api):
            at = Controller(Settings())
            await at.start()
            await until(lambda: sum("resourcequotas" in path for path in api.requests) > 3)
            assert not at.ready, "one kind is missing"
            assert at.trouble() is None
            del api.refused["ResourceQuota"]
            await until(lambda: at.ready)
            assert at.cache.get(KEY) is not None
            assert not at._workers, "it does not hold the lease"
            await at.stop()
            assert all(task.done() for task in at._tasks)

    asyncio.run(run())


def test_a_sweep_finds_what_no_event_told(cluster: Callable[[Handler], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        api = PagedApi()
        api.refused = {"Lease": 403}
        async with cluster(api):
            at = Controller(Settings(sweep_interval=timedelta(milliseconds=10)))
            await at.start()
            await until(lambda: at.ready)
            api.put(obj("FilterJob", "x", spec={}))
            await until(lambda: KEY in at.queue._waiting)
            api.refused["FilterJob"] = 500
            before = len(api.requests)
            await until(lambda: len(api.requests) > before + 50)
            assert at.trouble() is None, "trouble with the API server is none of the process"
            assert at.cache.get(KEY) is not None
            await at.stop()

    asyncio.run(run())


def test_the_whole_memory_is_looked_through_from_time_to_time(
    cluster: Callable[[Handler], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    collections: list[str] = []
    monkeypatch.setattr(controller_module, "_GARBAGE", 0.01)

    async def run() -> None:
        async with cluster(PagedApi()):
            at = Controller(Settings())
            monkeypatch.setattr(gc, "collect", lambda: collections.append("all"))
            await at.start()
            await until(lambda: len(collections) == 3)
            await at.stop()

    asyncio.run(run())


def test_of_a_controller_that_was_replaced_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Controller]] = []

    def in_a_cycle(settings: Settings) -> Controller:
        controller = Controller(settings)
        vars(controller)["itself"] = controller  # as by its callbacks
        made.append(weakref.ref(controller))
        return controller

    async def work(*, stop_flag: asyncio.Event, **_: Any) -> None:
        assert [old for old in made[:-1] if old() is not None] == []
        if len(made) < 3:
            stop_flag.set()

    monkeypatch.setattr(handlers, "Controller", in_a_cycle)
    monkeypatch.setattr("kopf.operator", work)
    gc.disable()
    try:
        asyncio.run(operate(Settings()))
    finally:
        gc.enable()
    assert len(made) == 3


def test_and_at_no_other_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own rule would have it done whenever the cache has grown by a quarter."""
    seen: list[int] = []

    async def work(_: Settings) -> None:
        seen.append(gc.get_threshold()[2])

    async def nothing() -> None:
        pass

    monkeypatch.setattr(program, "operate", work)
    monkeypatch.setattr(program, "load_configuration", nothing)
    monkeypatch.setattr(program, "set_up", lambda _: None)
    monkeypatch.setattr("sys.argv", ["posttrain-operator"])
    usual = gc.get_threshold()
    try:
        assert program.main() == 0
    finally:
        gc.set_threshold(*usual)
    assert seen[0] >= 1_000_000


def test_a_process_that_cannot_begin_ends(cluster: Callable[[Handler], Any]) -> None:
    async def run() -> None:
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            async with cluster(PagedApi()):
                with pytest.raises(Exception, match="handlers failed") as error:
                    await operate(Settings(port=taken.getsockname()[1]))
                assert isinstance(error.value.__cause__, OSError)

    asyncio.run(run())


def test_a_user_without_a_name_may_run_it(cluster: Callable[[Handler], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a cluster that gives each namespace users of its own; libraries ask for the name."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000650000")

    monkeypatch.setattr(getpass, "getuser", nobody)
    asked: list[str] = []

    async def slow_to_answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"kind": "Status", "metadata": {}}, status=500)

    async def run() -> None:
        async with cluster(slow_to_answer):
            operator = asyncio.get_running_loop().create_task(operate(Settings(port=0)))
            await until(lambda: "/apis" in asked or operator.done())
            assert not operator.done()
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)

    asyncio.run(run())


def test_refused_credentials_are_tried_again(
    cluster: Callable[[Handler], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that restarts answers 401 to everybody for a moment."""
    monkeypatch.setattr(handlers, "_LOGIN_PAUSE", 0.01)
    api = PagedApi()
    api.refused = dict.fromkeys(("FilterJob", "Lease"), 401)
    discoveries: list[int] = []

    async def moody(request: web.BaseRequest) -> web.StreamResponse:
        if request.path in ("/api", "/apis"):
            discoveries.append(401 if len(discoveries) < 12 else 500)
            return web.json_response({"kind": "Status", "metadata": {}}, status=discoveries[-1])
        return await api(request)

    async def run() -> None:
        async with cluster(moody):
            operator = asyncio.get_running_loop().create_task(operate(Settings(port=0)))
            await until(lambda: 500 in discoveries or operator.done())
            assert not operator.done()
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)

    asyncio.run(run())
