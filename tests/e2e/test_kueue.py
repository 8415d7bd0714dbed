"""Quotas of the real Kueue: teams wait, give way, and go on."""

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import pytest
from support.kubectl import Json
from support.kueue_on_cluster import HIGH, LOW, QUEUE, KueueOnCluster
from support.on_cluster import JobOnCluster, OnCluster, step_of
from support.tiny_jobs import CPU, RL_MEMORY, TUNING_MEMORY, reinforcement, tuning

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

STEPS: Final = 2000
EVERY: Final = 100


def test_the_second_team_waits_and_is_admitted_when_quota_frees(
    kueue: KueueOnCluster, new_team: Callable[[], OnCluster]
) -> None:
    one, other = new_team(), new_team()
    kueue.share([one, other], cpu=CPU, memory=TUNING_MEMORY)
    first = one.submit(tuning("first", steps=500, queue=QUEUE))
    first.reach("Running")
    second = other.submit(tuning("second", steps=10, queue=QUEUE))
    other.wait_for(lambda: second.condition("Admitted").get("reason") == "QuotaMissing", "a reason to wait")
    assert second.condition("Admitted")["message"].startswith(f"waiting in queue {QUEUE}: insufficient unused quota")
    assert second.status["phase"] == "Queued"
    assert second.pods() == []
    first.succeed()
    second.succeed()
    assert ends(first)[0] <= starts(second)[0], "there is quota for one of them"
    assert [len(job.attempts) for job in (first, second)] == [1, 1]


def test_a_high_priority_preempts_a_running_job_which_goes_on_later(kueue: KueueOnCluster, team: OnCluster) -> None:
    kueue.share([team], cpu=CPU, memory=TUNING_MEMORY)
    low = team.submit(
        tuning("low", steps=STEPS, save_every=STEPS, queue=QUEUE, priorityClass=kueue.priority(LOW), retries=0)
    )
    step = low.wait_past(EVERY)
    high = team.submit(tuning("high", steps=10, queue=QUEUE, priorityClass=kueue.priority(HIGH)))
    high.succeed()
    low.succeed()
    assert "Preempted" in low.reasons
    (attempt,) = low.attempts
    assert step_of(attempt["resumedFrom"]) >= step, "it saved before it gave way"
    assert len(low.pods()) == 2
    assert len(high.attempts) == 1


def test_two_rljobs_on_quota_for_one_take_turns_and_both_end(kueue: KueueOnCluster, team: OnCluster) -> None:
    kueue.share([team], cpu="1600m", memory=f"{2 * int(RL_MEMORY.removesuffix('Gi'))}Gi")
    first = team.submit(reinforcement("first", steps=5, queue=QUEUE))
    second = team.submit(reinforcement("second", steps=5, queue=QUEUE))
    team.wait_for(lambda: all(job.holds("Succeeded") for job in (first, second)), "both to succeed", seconds=1200)
    assert "WaitingForTurn" in first.reasons + second.reasons
    # The second may take the half that the first one's trainer leaves while the first one's server still ends.
    assert most_at_once([*first.pods(), *second.pods()]) == 2, "there is quota for a trainer and a server"


def most_at_once(pods: list[Json]) -> int:
    """How many of some pods were there at one time. One whose end nobody saw counts until it was asked to end."""
    changes: list[tuple[datetime, int]] = []
    for pod in (pod for pod in pods if "startTime" in pod["status"]):
        states = [container["state"].get("terminated") for container in pod["status"].get("containerStatuses", [])]
        if ended := [moment(state["finishedAt"]) for state in states if state]:
            end = max(ended)
        else:
            grace = timedelta(seconds=pod["metadata"]["deletionGracePeriodSeconds"])
            end = moment(pod["metadata"]["deletionTimestamp"]) - grace
        changes += [(moment(pod["status"]["startTime"]), 1), (end, -1)]
    # Of the same second ends come first: there are no finer times.
    return max(itertools.accumulate(change for _, change in sorted(changes)))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def starts(job: JobOnCluster) -> list[str]:
    """When the pods of its first attempt started, oldest first."""
    return sorted(str(pod["status"]["startTime"]) for pod in job.pods() if "startTime" in pod["status"])


def ends(job: JobOnCluster) -> list[str]:
    """When the containers of its first attempt that ended by themselves ended, oldest first."""
    states = [state for pod in job.pods() for state in pod["status"].get("containerStatuses", [])]
    return sorted(str(state["state"]["terminated"]["finishedAt"]) for state in states if "terminated" in state["state"])
