"""The lease, in virtual time: at most one process may write, whatever becomes of processes, clocks and connections."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_operator.cluster import Json
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.lease import DURATION, PERIOD, VALID, Lease
from posttrain_operator.rest import RefusedError, Rest
from posttrain_operator.server_clock import ServerClock
from support.virtual_time import in_virtual_time, now

TAKE_OVER = 20.0
"""Seconds after the death of the holder in which another acts."""


class Server:
    """An API server with room for one Lease; what was sent arrives, also when nobody waits for the answer any more."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.has_namespace = True
        self.conflicts = 0
        """How often somebody else will write right before a write."""
        self.version = 0
        self.tasks: set[asyncio.Task[Json]] = set()

    def write(self, spec: Json | None) -> Json:
        """Writes as somebody else, past every check."""
        self.version += 1
        self.lease = {"metadata": {"name": "lease", "resourceVersion": str(self.version)}}
        if spec is not None:
            self.lease["spec"] = spec
        return self.lease

    def answer(self, method: str, body: Json | None) -> Json:
        if method == "GET":
            if self.lease is None:
                raise RefusedError(404, "NotFound", "no lease")
            return self.lease
        assert body is not None
        if not self.has_namespace:
            raise RefusedError(404, "NotFound", "no namespace")
        if self.conflicts and self.lease is not None:
            self.conflicts -= 1
            self.write(self.lease["spec"])
        stored = self.lease["metadata"]["resourceVersion"] if self.lease is not None else None
        if stored != body["metadata"].get("resourceVersion"):
            raise RefusedError(409, "Conflict", "somebody else was first")
        return self.write(body["spec"])

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease is not None else ""


class Line(Rest):
    """One process's connection to the server."""

    clock = ServerClock()

    def __init__(self, server: Server) -> None:
        self.server = server
        self.there = self.back = 0.01
        """Seconds that a request needs, and its answer."""
        self.cut = False
        self.loses_answers = False
        self.refuses: RefusedError | None = None
        self.writes: list[Json] = []

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Json:
        if self.cut:
            await asyncio.sleep(3600)
        arrived = asyncio.get_running_loop().create_task(self._arrive(method, body))
        self.server.tasks.add(arrived)
        arrived.add_done_callback(lambda task: task.cancelled() or task.exception())
        answer = await asyncio.shield(arrived)
        await asyncio.sleep(3600 if self.cut or (self.loses_answers and method != "GET") else self.back)
        return answer

    async def _arrive(self, method: str, body: Json | None) -> Json:
        await asyncio.sleep(self.there)
        if self.refuses is not None:
            raise self.refuses
        if body is not None:
            self.writes.append(body)
        return self.server.answer(method, body)


class Process:
    """A process that wants to act."""

    def __init__(self, server: Server, identity: str) -> None:
        self.line = Line(server)
        self.lease = Lease(self.line, "system", "lease", identity, clock=now)
        self.began: list[float] = []
        self.ended: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.lease.keep(self._begin, self._end))

    def kill(self) -> None:
        """Ends it with nothing said. Its lease counts until it has run out: it may have sent something just now."""
        if self._task is not None:
            self._task.cancel()

    @property
    def acts(self) -> bool:
        return len(self.began) > len(self.ended)

    async def _begin(self) -> None:
        assert self.lease.held
        self.began.append(now())

    def _end(self) -> None:
        assert not self.lease.held
        self.ended.append(now())


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    for process in processes:
        process.start()
    watcher = asyncio.get_running_loop().create_task(watch(processes))
    try:
        yield
        if watcher.done():
            watcher.result()
    finally:
        watcher.cancel()
        for process in processes:
            process.kill()


async def passes(condition: Callable[[], bool]) -> float:
    """When a condition has come true."""
    while not condition():  # noqa: ASYNC110 - time that passes makes it true, and nobody says so
        await asyncio.sleep(0.01)
    return now()


async def watch(processes: Sequence[Process]) -> None:
    while True:
        holders = [process.lease.identity for process in processes if process.lease.held]
        assert len(holders) <= 1, f"{holders} may write at {now()}"
        await asyncio.sleep(0.25)


def contenders(number: int = 2) -> tuple[Server, list[Process]]:
    server = Server()
    return server, [Process(server, name) for name in "abc"[:number]]


# One process.


def test_who_is_alone_acts_at_once_and_for_ever() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(1)
            assert a.lease.held
            a.lease.check()
            await asyncio.sleep(600)
        assert (len(a.began), a.ended) == (1, [])
        assert server.holder == "a"

    in_virtual_time(scenario())


def test_before_the_lease_is_held_nothing_may_be_written() -> None:
    async def scenario() -> None:
        _, (a,) = contenders(1)
        assert not a.lease.held
        with pytest.raises(ApiUnavailable, match="does not hold the lease system/lease"):
            a.lease.check()

    in_virtual_time(scenario())


def test_what_is_written_is_what_people_expect_of_a_lease() -> None:
    async def scenario() -> list[Json]:
        _, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(10)
        return [write["spec"] for write in a.line.writes]

    first, *others = in_virtual_time(scenario())
    assert first["holderIdentity"] == "a"
    assert first["leaseDurationSeconds"] == DURATION
    assert first["acquireTime"] == first["renewTime"]
    datetime.strptime(first["renewTime"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert {spec["acquireTime"] for spec in others} == {first["acquireTime"]}
    assert {spec["leaseTransitions"] for spec in [first, *others]} == {0}
    assert len(others) == 10 // PERIOD - 1


def test_the_time_that_a_renewal_took_counts() -> None:
    async def scenario() -> None:
        _, (a,) = contenders(1)
        a.line.there = a.line.back = 1.5
        with running(a):
            await asyncio.sleep(6.1)  # asked at 0; the Lease was made at 6, by two requests of 3 s each
            assert a.lease.held
            a.line.cut = True
            await asyncio.sleep(VALID - 6.2)
            assert a.lease.held
            await asyncio.sleep(0.2)
            assert not a.lease.held

    in_virtual_time(scenario())


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": ""}, {"holderIdentity": None, "leaseTransitions": None}])
def test_a_lease_that_nobody_holds_is_taken_at_once(spec: Json | None) -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        server.write(spec)
        with running(a):
            await asyncio.sleep(1)
        assert server.holder == "a"

    in_virtual_time(scenario())


def test_a_new_process_of_the_same_name_goes_on_at_once() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        again = Process(server, "a")
        with running(a):
            await asyncio.sleep(5)
        with running(again):
            await asyncio.sleep(1)
            assert again.lease.held

    in_virtual_time(scenario())


def test_a_lease_that_is_deleted_is_made_again() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(5)
            server.lease = None
            await asyncio.sleep(60)
            assert server.holder == "a"
        assert (len(a.began), a.ended) == (1, [])

    in_virtual_time(scenario())


def test_without_its_namespace_it_waits_for_it() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        server.has_namespace = False
        with running(a):
            await asyncio.sleep(60)
            assert not a.lease.held
            server.has_namespace = True
            await asyncio.sleep(2 * PERIOD)
            assert a.lease.held

    in_virtual_time(scenario())


@pytest.mark.parametrize("code", [403, 409, 422])
def test_refusals_are_outlived(code: int) -> None:
    async def scenario() -> None:
        _, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(10)
            a.line.refuses = RefusedError(code, "Because", "no")
            await asyncio.sleep(60)
            assert not a.acts
            a.line.refuses = None
            await asyncio.sleep(2 * PERIOD)
            assert a.acts
        assert len(a.began) == 2

    in_virtual_time(scenario())


def test_one_conflict_changes_nothing() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(10)
            server.conflicts = 1
            await asyncio.sleep(60)
        assert server.conflicts == 0
        assert (len(a.began), a.ended) == (1, [])

    in_virtual_time(scenario())


def test_an_answer_that_is_lost_does_not_count() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        a.line.loses_answers = True
        with running(a):
            await asyncio.sleep(3 * VALID)
            assert server.holder == "a"
            assert not a.lease.held, "it does not know"
            a.line.loses_answers = False
            await asyncio.sleep(VALID + 2 * PERIOD)
            assert a.lease.held

    in_virtual_time(scenario())


# Two.


def test_of_two_that_begin_together_one_acts() -> None:
    async def scenario() -> None:
        server, (a, b) = contenders()
        with running(a, b):
            await asyncio.sleep(600)
        assert len(a.began) + len(b.began) == 1
        assert server.holder == ("a" if a.began else "b")

    in_virtual_time(scenario())


@pytest.mark.parametrize("moment", [10.0, 10.6, 11.2, 11.8, 12.4])
def test_another_takes_over_when_the_holder_dies(moment: float) -> None:
    async def scenario() -> None:
        server, (a, b) = contenders()
        with running(a):
            await asyncio.sleep(5)
            b.start()
            await asyncio.sleep(moment - 5)
            a.kill()
            await asyncio.sleep(TAKE_OVER)
            assert server.holder == "b"
            b.kill()
        assert moment + VALID - PERIOD < b.began[0] <= moment + TAKE_OVER

    in_virtual_time(scenario())


def test_another_takes_over_at_once_when_the_holder_lets_go() -> None:
    async def scenario() -> None:
        server, (a, b) = contenders()
        with running(a):
            await asyncio.sleep(5)
            b.start()
            await asyncio.sleep(5)
            a.kill()
            await a.lease.release()
            assert not a.lease.held
            assert server.holder == ""
            await asyncio.sleep(PERIOD + 0.1)
            assert b.lease.held
            b.kill()
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 1

    in_virtual_time(scenario())


def test_who_does_not_hold_it_lets_nothing_go() -> None:
    async def scenario() -> None:
        server, (a, b) = contenders()
        with running(a):
            await asyncio.sleep(5)
            await b.lease.release()
            assert server.holder == "a"
            assert b.line.writes == []

    in_virtual_time(scenario())


def test_who_lets_go_may_not_write_even_if_the_api_server_does_not_hear_it() -> None:
    async def scenario() -> None:
        _, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(5)
            a.kill()
            a.line.cut = True
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(a.lease.release(), 2)
            assert not a.lease.held

    in_virtual_time(scenario())


def test_who_is_cut_off_stops_before_another_begins() -> None:
    async def scenario() -> None:
        server, (a, b) = contenders()
        with running(a, b):
            await asyncio.sleep(10)
            one, other = (a, b) if a.acts else (b, a)
            one.line.cut = True
            stopped = await passes(lambda: not one.lease.held)
            taken = await passes(lambda: other.lease.held)
            assert taken - stopped > DURATION - VALID
            assert taken - 10 < TAKE_OVER
            assert len(one.ended) == 1
            one.line.cut = False
            await asyncio.sleep(60)
            assert not one.lease.held
            assert server.holder == other.lease.identity

    in_virtual_time(scenario())


def test_a_silent_api_server_is_waited_for_by_all() -> None:
    async def scenario() -> None:
        _, (a, b) = contenders()
        with running(a, b):
            await asyncio.sleep(10)
            for process in (a, b):
                process.line.cut = True
            await asyncio.sleep(VALID)
            assert not a.lease.held
            assert not b.lease.held
            await asyncio.sleep(300)
            for process in (a, b):
                process.line.cut = False
            await asyncio.sleep(VALID + 2 * PERIOD)
            assert a.acts + b.acts == 1

    in_virtual_time(scenario())


def test_a_process_that_was_stopped_may_not_write_when_it_goes_on() -> None:
    async def scenario() -> None:
        server, (a, b) = contenders()
        with running(a):
            await asyncio.sleep(10)
            a.kill()  # it does nothing at all now, and does not know
            b.start()
            await asyncio.sleep(60)
            assert server.holder == "b"
            with pytest.raises(ApiUnavailable):
                a.lease.check()  # the first thing that happens when it goes on
            a.start()
            await asyncio.sleep(60)
            assert (len(a.began), b.acts) == (1, True)
            b.kill()

    in_virtual_time(scenario())


def test_a_holder_that_somebody_else_names_is_respected_at_the_next_look() -> None:
    async def scenario() -> None:
        server, (a,) = contenders(1)
        with running(a):
            await asyncio.sleep(10)
            server.write({"holderIdentity": "somebody"})
            await asyncio.sleep(PERIOD + 0.1)
            assert not a.lease.held
            assert not a.acts
            await asyncio.sleep(DURATION + 2 * PERIOD)
            assert a.lease.held, "somebody did not renew it"

    in_virtual_time(scenario())


# Clocks that people and daemons set.

SKEW: ContextVar[timedelta] = ContextVar("SKEW", default=timedelta())
SKEWS = [timedelta(seconds=262), timedelta(seconds=-262), timedelta(days=365), timedelta(days=-1)]


class SkewedClock(ServerClock):
    """The clock of a machine that is wrong."""

    def now(self) -> datetime:
        return super().now() + SKEW.get()


def timeline(skews: Sequence[timedelta]) -> list[tuple[list[float], list[float]]]:
    """Who acts when, of two, of whom the holder dies and comes back."""

    async def scenario() -> list[tuple[list[float], list[float]]]:
        _, processes = contenders()
        a, b = processes
        b.line.there = 0.02  # so that it is a who begins
        with running():
            for process, skew in zip(processes, skews, strict=True):
                SKEW.set(skew)  # the task inherits it
                process.start()
            await asyncio.sleep(60)
            a.kill()
            await asyncio.sleep(60)
            SKEW.set(skews[0] - timedelta(hours=1))  # set back meanwhile
            a.start()
            await asyncio.sleep(60)
            for process in processes:
                process.kill()
        return [(process.began, process.ended) for process in processes]

    return in_virtual_time(scenario())


@pytest.mark.parametrize("one", SKEWS)
@pytest.mark.parametrize("other", [timedelta(), *SKEWS])
def test_wrong_clocks_change_nothing(one: timedelta, other: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    right = timeline([timedelta(), timedelta()])
    monkeypatch.setattr(Line, "clock", SkewedClock(), raising=False)
    assert timeline([one, other]) == right
    assert right[1][0], "the other took over"


# Anything at any time.

DISTURBANCES = st.lists(
    st.tuples(
        st.floats(0.1, 15),
        st.integers(0, 2),
        st.one_of(
            st.sampled_from(["kill", "start", "cut", "join", "lose", "release"]),
            st.tuples(st.floats(0.001, 6), st.floats(0.001, 6)),
        ),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(DISTURBANCES)
def test_whatever_happens_one_at_most_may_write_and_in_the_end_one_acts(disturbances: list[Any]) -> None:
    async def scenario() -> None:
        _, processes = contenders(3)
        with running(*processes):
            for pause, number, what in disturbances:
                await asyncio.sleep(pause)
                await disturb(processes[number], what)
            for process in processes:
                await disturb(process, "start")
                await disturb(process, "join")
                await disturb(process, (0.01, 0.01))
            await asyncio.sleep(VALID + TAKE_OVER)
            assert sum(process.lease.held for process in processes) == 1

    in_virtual_time(scenario())


async def disturb(process: Process, what: Any) -> None:
    match what:
        case "kill":
            process.kill()
        case "start":
            process.kill()
            process.start()
        case "cut" | "join":
            process.line.cut = what == "cut"
            process.line.loses_answers = False
        case "lose":
            process.line.loses_answers = True
        case "release":
            process.kill()
            with suppress(TimeoutError, RefusedError):
                await asyncio.wait_for(process.lease.release(), 2)
        case there, back:
            process.line.there, process.line.back = there, back
