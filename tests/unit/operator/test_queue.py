"""The work queue, in virtual time: who gets a pass, when, and in which turn."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_operator.cluster import Ref
from posttrain_operator.labels import API_VERSION
from posttrain_operator.queue import WorkQueue
from support.virtual_time import in_virtual_time, now

FIRST, LONGEST, JITTER = 0.2, 60.0, 0.25
"""Seconds of the first and of the longest pause, and by which share a pause may be stretched."""


def key(name: str, namespace: str = "team") -> Ref:
    return Ref(API_VERSION, "FilterJob", namespace, name)


def queue(jitter: float = 0.0) -> WorkQueue:
    return WorkQueue(jitter=lambda: jitter, clock=lambda: asyncio.get_running_loop().time())


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@contextmanager
def workers(
    number: int, work: WorkQueue, handle: Callable[[Ref], Awaitable[None]]
) -> Iterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.get_running_loop().create_task(work.work(handle)) for _ in range(number)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()


@dataclass
class Passes:
    """A handler that takes its time and writes down who had a pass, and when."""

    lasting: float = 1.0
    begun: list[tuple[float, Ref]] = field(default_factory=list)
    at_work: Counter[Ref] = field(default_factory=Counter)
    most_at_work: int = 0

    async def __call__(self, ref: Ref) -> None:
        self.begun.append((now(), ref))
        self.at_work[ref] += 1
        assert self.at_work[ref] == 1, f"two workers at {ref}"
        self.most_at_work = max(self.most_at_work, self.at_work.total())
        await asyncio.sleep(self.lasting)
        self.at_work[ref] -= 1

    @property
    def names(self) -> list[str]:
        return [ref.name for _, ref in self.begun]

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.begun]


# Passes.


def test_what_is_added_many_times_has_one_pass() -> None:
    async def scenario() -> list[str]:
        work, passes = queue(), Passes()
        for _ in range(100):
            work.add(key("a"))
        with workers(4, work, passes):
            await asyncio.sleep(60)
        return passes.names

    assert in_virtual_time(scenario()) == ["a"]


def test_what_is_added_while_it_is_worked_on_has_one_more_pass_afterwards() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=10)
        work.add(key("a"))
        with workers(4, work, passes):
            for _ in range(9):
                await asyncio.sleep(1)
                work.add(key("a"))
            await asyncio.sleep(60)
        return passes.times

    assert in_virtual_time(scenario()) == [0, 10]


def test_a_key_has_one_worker_and_others_do_not_wait_for_it() -> None:
    async def scenario() -> Passes:
        work, passes = queue(), Passes(lasting=10)
        with workers(8, work, passes):
            for _ in range(50):
                work.add(key("hot"))
                await asyncio.sleep(0.7)
                work.add(key("other"))
            await asyncio.sleep(100)
        return passes

    passes = in_virtual_time(scenario())  # Passes itself fails when two workers have one key
    assert passes.most_at_work == 2
    assert passes.names.count("hot") >= 4


def test_no_more_keys_are_worked_on_than_there_are_workers() -> None:
    async def scenario() -> Passes:
        work, passes = queue(), Passes()
        for number in range(100):
            work.add(key(str(number)))
        with workers(7, work, passes):
            await asyncio.sleep(4.5)
            assert work.at_work == 7
            assert len(work) == 100 - 5 * 7
            await asyncio.sleep(100)
        return passes

    passes = in_virtual_time(scenario())
    assert passes.most_at_work == 7
    assert sorted(passes.names) == sorted(map(str, range(100)))


def test_every_addition_wakes_a_worker() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=10)
        with workers(3, work, passes):
            await asyncio.sleep(1)  # everybody sleeps
            for name in "abc":
                work.add(key(name))
            await asyncio.sleep(1)
        return passes.times

    assert in_virtual_time(scenario()) == [1, 1, 1]


# Time.


def test_of_two_times_the_earlier_holds_whichever_came_first() -> None:
    async def scenario() -> list[tuple[float, str]]:
        work, passes = queue(), Passes(lasting=0)
        with workers(1, work, passes):
            work.add_after(key("late first"), seconds(30))
            work.add_after(key("late first"), seconds(10))
            work.add_after(key("early first"), seconds(11))
            work.add_after(key("early first"), seconds(30))
            await asyncio.sleep(100)
        return [(time, ref.name) for time, ref in passes.begun]

    assert in_virtual_time(scenario()) == [(10, "late first"), (11, "early first")]


def test_an_addition_takes_the_place_of_a_later_time() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=0)
        with workers(1, work, passes):
            work.add_after(key("a"), seconds(30))
            await asyncio.sleep(5)
            work.add(key("a"))
            await asyncio.sleep(100)
        return passes.times

    assert in_virtual_time(scenario()) == [5]


def test_a_time_means_nothing_to_a_key_that_waits_already() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=0)
        work.add(key("a"))
        work.add_after(key("a"), seconds(30))
        with workers(1, work, passes):
            await asyncio.sleep(100)
        return passes.times

    assert in_virtual_time(scenario()) == [0]


def test_a_time_that_comes_while_the_key_is_worked_on_brings_one_more_pass() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=10)
        work.add(key("a"))
        with workers(2, work, passes):
            await asyncio.sleep(1)
            work.add_after(key("a"), seconds(3))
            await asyncio.sleep(100)
        return passes.times

    assert in_virtual_time(scenario()) == [0, 10]


@pytest.mark.parametrize("delay", [0.0, -5.0])
def test_a_time_in_the_past_is_now(delay: float) -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=0)
        with workers(1, work, passes):
            await asyncio.sleep(7)
            work.add_after(key("a"), seconds(delay))
            await asyncio.sleep(1)
        return passes.times

    assert in_virtual_time(scenario()) == [7]


# Failures.


async def failures(jitter: float, *, times: int, at_least: timedelta | None = None) -> list[float]:
    """When a key has its passes that fails so many times in a row."""
    work, passes = queue(jitter), Passes(lasting=0)

    async def fail(ref: Ref) -> None:
        await passes(ref)
        if len(passes.begun) <= times:
            work.failed(ref, at_least=at_least)

    work.add(key("a"))
    with workers(2, work, fail):
        await asyncio.sleep(10_000)
    return passes.times


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_pauses_double_with_every_failure_up_to_a_minute(jitter: float) -> None:
    times = in_virtual_time(failures(jitter, times=30))
    pauses = [after - before for before, after in pairwise(times)]
    wanted = [min(FIRST * 2**number, LONGEST) * (1 + JITTER * jitter) for number in range(30)]
    assert pauses == pytest.approx(wanted, abs=1e-3)


def test_no_number_of_failures_is_too_large() -> None:
    assert len(in_virtual_time(failures(1.0, times=130))) == 131


def test_what_the_api_server_asks_to_wait_is_waited_at_least() -> None:
    times = in_virtual_time(failures(0.0, times=8, at_least=seconds(5)))
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == pytest.approx([5, 5, 5, 5, 5, 6.4, 12.8, 25.6], abs=1e-3)


def test_a_success_makes_the_next_failure_the_first_one() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=0)
        results = iter("ffffsfs")

        async def handle(ref: Ref) -> None:
            await passes(ref)
            if next(results) == "f":
                work.failed(ref)
            else:
                work.succeeded(ref)

        work.add(key("a"))
        with workers(1, work, handle):
            await asyncio.sleep(50)
            work.add(key("a"))
            await asyncio.sleep(50)
        return [after - before for before, after in pairwise(passes.times)]

    pauses = in_virtual_time(scenario())
    assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6], abs=1e-3)
    assert pauses[5] == pytest.approx(0.2, abs=1e-3)


def test_an_event_is_looked_at_in_spite_of_a_pause() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=0)
        with workers(1, work, passes):
            work.failed(key("a"), at_least=seconds(300))
            await asyncio.sleep(2)
            work.add(key("a"))
            await asyncio.sleep(1_000)
        return passes.times

    assert in_virtual_time(scenario()) == [2]


@pytest.mark.parametrize("at_least", [None, seconds(30)])
def test_keys_that_fail_together_do_not_come_back_together(at_least: timedelta | None) -> None:
    async def scenario() -> list[float]:
        work, passes = WorkQueue(), Passes(lasting=0)  # with its own dice
        with workers(50, work, passes):
            for number in range(1_000):
                work.failed(key(str(number)), at_least=at_least)
            await asyncio.sleep(100)
        return passes.times

    times = in_virtual_time(scenario())
    pause = at_least.total_seconds() if at_least is not None else FIRST
    assert len(times) == 1_000
    assert pause <= min(times) < max(times) <= pause * (1 + JITTER) + 1e-3
    assert max(Counter(round(time / pause, 2) for time in times).values()) < 100


# Turns.


@pytest.mark.parametrize("number", [1, 4, 24])
def test_a_busy_tenant_delays_another_by_at_most_one_key_of_each_worker(number: int) -> None:
    async def scenario() -> tuple[int, float]:
        work, passes = queue(), Passes()
        for name in range(1_000):
            work.add(key(str(name), "busy"))
        with workers(number, work, passes):
            await asyncio.sleep(3.5)
            before = len(passes.begun)
            work.add(key("quiet", "quiet"))
            await asyncio.sleep(1_100)
        namespaces = [ref.namespace for _, ref in passes.begun]
        turn = namespaces.index("quiet")
        return turn - before, passes.times[turn] - 3.5

    taken_before, waited = in_virtual_time(scenario())
    assert taken_before <= number
    assert waited <= 2.0, "longer than the passes under way and one more"


def test_namespaces_take_turns_and_keys_of_one_come_in_order() -> None:
    async def scenario() -> list[str]:
        work, passes = queue(), Passes()
        for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
            work.add(key(name, name[0]))
        with workers(1, work, passes):
            await asyncio.sleep(100)
        return passes.names

    assert in_virtual_time(scenario()) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_nobody_starves_whatever_is_added_all_the_time() -> None:
    async def scenario() -> Counter[str]:
        work, passes = queue(), Passes(lasting=0.5)

        async def handle(ref: Ref) -> None:
            await passes(ref)
            work.add(ref)  # wants another pass at once, for ever

        for namespace in range(10):
            for name in range(5):
                work.add(key(str(name), str(namespace)))
        with workers(2, work, handle):
            await asyncio.sleep(500)
        return Counter(f"{ref.namespace}/{ref.name}" for _, ref in passes.begun)

    counts = in_virtual_time(scenario())
    assert len(counts) == 50
    assert max(counts.values()) - min(counts.values()) <= 1


def test_it_tells_how_long_the_oldest_key_has_waited() -> None:
    async def scenario() -> list[float]:
        work = queue()
        told = [work.longest_wait]
        work.add(key("a"))
        await asyncio.sleep(5)
        work.add(key("b"))
        work.add(key("a"))
        told.append(work.longest_wait)
        await work.take()
        await asyncio.sleep(2)
        told.append(work.longest_wait)
        await work.take()
        return [*told, work.longest_wait]

    assert in_virtual_time(scenario()) == [0, 5, 2, 0]


# Workers that end.


def test_a_worker_that_is_cancelled_at_work_leaves_its_key_to_another() -> None:
    async def scenario() -> list[tuple[float, str]]:
        work, passes = queue(), Passes(lasting=10)

        async def handle(ref: Ref) -> None:
            passes.begun.append((now(), ref))
            await asyncio.sleep(10)

        work.add(key("a"))
        with workers(1, work, handle) as tasks:
            await asyncio.sleep(4)
            tasks[0].cancel()
            await asyncio.sleep(1)
            assert (work.at_work, len(work)) == (0, 1)
            with workers(1, work, handle):
                await asyncio.sleep(60)
        return [(time, ref.name) for time, ref in passes.begun]

    assert in_virtual_time(scenario()) == [(0, "a"), (5, "a")]


def test_a_worker_that_is_cancelled_as_it_wakes_passes_the_call_on() -> None:
    async def scenario() -> list[float]:
        work, passes = queue(), Passes(lasting=0)
        with workers(2, work, passes) as (first, second):
            await asyncio.sleep(1)  # both sleep, the first at the head of the line
            work.add(key("a"))
            first.cancel()  # before it has run
            await asyncio.sleep(60)
            assert first.cancelled()
            assert not second.done()
        return passes.times

    assert in_virtual_time(scenario()) == [1]


def test_a_handler_that_raises_ends_its_worker_and_gives_the_key_back() -> None:
    async def scenario() -> None:
        work = queue()

        async def handle(_: Ref) -> None:
            raise OSError("a defect")

        work.add(key("a"))
        with workers(1, work, handle) as (worker,):
            with pytest.raises(OSError, match="a defect"):
                await worker
            assert (work.at_work, len(work)) == (0, 0)

    in_virtual_time(scenario())


# Everything at once, against a model of a few lines.


@dataclass
class Key:
    """What the queue should know of a key."""

    due: float | None = None
    at_work: bool = False
    again: bool = False
    failures: int = 0

    def add(self, time: float) -> None:
        if self.at_work:
            self.again = True
        else:
            self.due = time

    def add_after(self, time: float, delay: float) -> None:
        if not self.waits(time):
            self.due = min(time + delay, self.due if self.due is not None else time + delay)

    def fail(self, time: float) -> None:
        self.failures += 1
        self.add_after(time, min(FIRST * 2 ** (self.failures - 1), LONGEST))

    def tick(self, time: float) -> None:
        if self.at_work and self.due is not None and self.due <= time:
            self.due, self.again = None, True

    def done(self, time: float) -> None:
        self.at_work = False
        if self.again:
            self.due, self.again = time, False

    def waits(self, time: float) -> bool:
        return not self.at_work and self.due is not None and self.due <= time


REFS = [key(name, namespace) for namespace in "ab" for name in "123"]
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(REFS), st.just(0)),
        st.tuples(st.just("add_after"), st.sampled_from(REFS), st.integers(0, 9)),
        st.tuples(st.just("pass"), st.just(REFS[0]), st.just(0)),
        st.tuples(st.sampled_from(["end", "end badly", "cancel"]), st.just(REFS[0]), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.just(REFS[0]), st.integers(1, 9)),
    ),
    max_size=60,
)
Operation = tuple[str, Ref, int]


@settings(deadline=None)
@given(OPERATIONS)
def test_it_does_what_a_simple_model_does(operations: list[Operation]) -> None:
    in_virtual_time(follow(operations))


async def follow(operations: list[Operation]) -> None:
    work, model = queue(), {ref: Key() for ref in REFS}
    held: list[Ref] = []
    for operation, ref, number in operations:
        match operation:
            case "add":
                work.add(ref)
                model[ref].add(now())
            case "add_after":
                work.add_after(ref, seconds(number + 0.1))
                model[ref].add_after(now(), number + 0.1)
            case "wait":
                await asyncio.sleep(number)
            case "pass":
                await take(work, model, held)
            case "cancel":
                asyncio.get_running_loop().create_task(work.take()).cancel()
                await asyncio.sleep(0)
            case _ if held:
                finish(work, model, held.pop(number % len(held)), badly=operation == "end badly")
        for state in model.values():
            state.tick(now())
        assert len(work) == sum(state.waits(now()) for state in model.values())
        assert work.at_work == len(held)


async def take(work: WorkQueue, model: dict[Ref, Key], held: list[Ref]) -> None:
    """A worker asks for a key, and goes away when there is none."""
    waiting = {ref for ref, state in model.items() if state.waits(now())}
    task = asyncio.get_running_loop().create_task(work.take())
    await asyncio.sleep(0)
    assert task.done() == bool(waiting)
    if not waiting:
        task.cancel()
        return
    ref = task.result()
    assert ref in waiting
    model[ref].at_work, model[ref].due = True, None
    held.append(ref)


def finish(work: WorkQueue, model: dict[Ref, Key], ref: Ref, *, badly: bool) -> None:
    if badly:
        work.failed(ref)
        model[ref].fail(now())
    else:
        work.succeeded(ref)
        model[ref].failures = 0
    work.done(ref)
    model[ref].done(now())


# Keys that never rest.


def test_a_key_that_is_added_all_the_time_gets_ten_passes_and_then_one_in_two_seconds() -> None:
    async def scenario() -> None:
        work, passes = queue(), Passes(lasting=0.0)
        with workers(2, work, passes):
            for _ in range(2000):
                work.add(key("restless"))
                await asyncio.sleep(0.01)
            assert 18 <= len(passes.begun) <= 21

    in_virtual_time(scenario())


def test_keys_that_never_rest_do_not_come_together_though_they_began_so() -> None:
    async def scenario() -> list[float]:
        work = WorkQueue(jitter=random.Random(1).random, clock=lambda: asyncio.get_running_loop().time())
        passes = Passes(lasting=0.0)
        with workers(2, work, passes):
            for _ in range(4_000):
                for number in range(20):
                    work.add(key(str(number)))
                await asyncio.sleep(0.01)
            return [time for time in passes.times if time >= 10]

    times = in_virtual_time(scenario())
    assert 20 * 30 / 2.5 <= len(times) <= 20 * 30 / 2
    assert max(Counter(int(time * 5) for time in times).values()) < 10, "half of the keys in a tenth of their pace"


def test_its_last_word_is_heard_all_the_same() -> None:
    async def scenario() -> None:
        work, passes = queue(), Passes(lasting=0.0)
        with workers(2, work, passes):
            for _ in range(50):
                work.add(key("restless"))
                await asyncio.sleep(0.01)
            last = now()
            await asyncio.sleep(4)
            assert max(at for at, _ in passes.begun) > last

    in_virtual_time(scenario())


def test_after_a_rest_it_is_as_any_other() -> None:
    async def scenario() -> None:
        work, passes = queue(), Passes(lasting=0.0)
        with workers(2, work, passes):
            for _ in range(50):
                work.add(key("restless"))
                await asyncio.sleep(0.01)
            await asyncio.sleep(40)
            work.add(key("restless"))
            await asyncio.sleep(0.01)
            assert now() - passes.begun[-1][0] < 0.05

    in_virtual_time(scenario())


def test_a_pass_that_waits_for_nothing_lets_others_in() -> None:
    async def scenario() -> None:
        work, seen = queue(), 0
        passes = Passes(lasting=0.0)

        async def glance() -> None:
            nonlocal seen
            while len(passes.begun) < 100:
                seen += 1
                await asyncio.sleep(0)

        for number in range(100):
            work.add(key(f"k{number}"))
        with workers(1, work, _at_once(passes)):
            await glance()
        assert seen > 50

    in_virtual_time(scenario())


def _at_once(passes: Passes) -> Callable[[Ref], Awaitable[None]]:
    async def handle(ref: Ref) -> None:
        passes.begun.append((now(), ref))

    return handle
