"""T1: the operator is killed at its writes, before they happen and before it learns that they did.

The oracle is the undisturbed run: the same objects with the same owners, specs and statuses, each made as often.
"""

from pathlib import Path

import pytest
from posttrain_contract.exit_codes import ExitCode
from support.api_client import Server
from support.arena import ONE_OF_EACH, Arena, Outcome, arena, undisturbed
from support.faults import Nth, Reset
from support.kubelet import Life
from support.pod_lives import at_attempt, fails
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

PREEMPTED_ONCE: Life = at_attempt({1: fails(ExitCode.PREEMPTED, "Stopped", "the node was needed")})
"""Every job has two attempts, the second right after the first."""


def crash(run: Arena, *numbers: int, answered: bool) -> Nth:
    """The operator ends at writes with these numbers and is started again at once."""

    def restart() -> None:
        run.operator.kill()
        run.operator.start()

    rule = Nth(numbers, Reset(answered=answered, hook=restart))
    run.proxy.rules = [rule]
    return rule


def check(run: Arena, expected: Outcome, rule: Nth) -> None:
    """Everything is as after the undisturbed run."""
    run.wait_equal(expected)
    assert rule.done
    # After the last write of all, everything is as it should be before the operator is back.
    wait_for(lambda: run.operator.starts == 1 + len(rule.numbers), "the operator to be started again")
    assert run.witness.doubles() == []
    assert run.witness.regressions() == []


@pytest.mark.parametrize(("answered", "numbers"), [(False, (2, 9, 20)), (True, (5, 14, 20))], ids=["before", "after"])
def test_a_crash_at_some_writes_changes_nothing(
    server: Server, tmp_path: Path, answered: bool, numbers: tuple[int, ...]
) -> None:
    expected, _ = undisturbed(server, ONE_OF_EACH, PREEMPTED_ONCE)
    with arena(server, tmp_path, life=PREEMPTED_ONCE) as run:
        rule = crash(run, *numbers, answered=answered)
        run.submit(*ONE_OF_EACH)
        check(run, expected, rule)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", [kind for kind, _ in ONE_OF_EACH])
def test_a_crash_at_any_write_changes_nothing(server: Server, tmp_path: Path, kind: str, answered: bool) -> None:
    jobs = ((kind, "x"),)
    expected, requests = undisturbed(server, jobs, PREEMPTED_ONCE)
    writes = sum(times for what, times in requests.items() if _counts(what))
    for number in range(1, writes + 1):
        with arena(server, tmp_path, life=PREEMPTED_ONCE) as run:
            rule = crash(run, number, answered=answered)
            run.submit(*jobs)
            check(run, expected, rule)


def _counts(what: str) -> bool:
    verb, resource = what.split()
    return verb in ("create", "patch", "update", "delete") and resource not in ("leases", "events")
