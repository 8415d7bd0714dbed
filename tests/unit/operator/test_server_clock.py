"""The operator's time is that of the API server, whatever its own machine's clock says."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes
from posttrain_operator.rest import Rest
from posttrain_operator.server_clock import ServerClock
from support.scripted_server import serving

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WRONG = [timedelta(seconds=262), timedelta(seconds=-262), timedelta(days=365), timedelta(days=-1)]


class Machine:
    """A machine's two clocks."""

    def __init__(self, off: timedelta = timedelta()) -> None:
        self.seconds = 1000.0
        self.off = off
        self.clock = ServerClock(lambda: self.seconds, lambda: self.true + self.off)

    @property
    def true(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds - 1000)

    def hear(self, *, seconds: float = 0.0) -> None:
        """An answer comes that was on its way for so long."""
        date = format_datetime(self.true.replace(microsecond=0), usegmt=True)
        self.seconds += seconds
        self.clock.heard(date, seconds=seconds)

    @property
    def error(self) -> timedelta:
        return abs(self.clock.now() - self.true)


@pytest.mark.parametrize("off", WRONG, ids=str)
def test_one_answer_puts_a_wrong_clock_right(off: timedelta) -> None:
    machine = Machine(off)
    assert machine.error == abs(off)
    machine.seconds += 0.7
    machine.hear()
    assert machine.error <= SECOND


@pytest.mark.parametrize("off", WRONG, ids=str)
def test_a_clock_that_jumps_is_not_followed(off: timedelta) -> None:
    machine = Machine()
    machine.off = off
    machine.seconds += 3600
    assert machine.error == timedelta()


def test_a_clock_that_is_right_is_left_alone() -> None:
    machine = Machine()
    for _ in range(100):
        machine.seconds += 0.37
        machine.hear(seconds=0.2)
        assert machine.error == timedelta()


def test_an_answer_that_comes_late_does_not_turn_time_back() -> None:
    machine = Machine()
    machine.hear(seconds=14)
    assert machine.error == timedelta()


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Jan 2026 12:00:00 GMT", "Thu, 01 Jan 2026 12:00:00"])
def test_what_is_no_date_tells_nothing(date: str | None) -> None:
    machine = Machine()
    machine.clock.heard(date, seconds=0)
    assert machine.error == timedelta()


def test_every_answer_of_the_api_server_is_heard() -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        date = format_datetime(NOON, usegmt=True)
        return web.json_response({"metadata": {}}, headers={"Date": date})

    async def ask() -> datetime:
        async with serving(answer) as url:
            client = Rest(kubernetes.Configuration(host=url))
            await client.get("/version")
            await client.close()
            return client.clock.now()

    assert abs(asyncio.run(ask()) - NOON) <= timedelta(seconds=30)
