"""Pods that are killed, deleted and evicted while they train: the job goes on from its checkpoint."""

import json
from typing import Final

import pytest
from support.on_cluster import OnCluster, step_of
from support.tiny_jobs import reinforcement, tuning

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

STEPS: Final = 2000
EVERY: Final = 100

KILL_THE_RANK: Final = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"posttrain_finetune.rank" in (process / "cmdline").read_bytes().split(b"\\0")[2:4]:
        os.kill(int(process.name), signal.SIGKILL)
"""


def test_a_gang_of_two_goes_on_after_a_process_was_killed_without_a_word(team: OnCluster) -> None:
    job = team.submit(tuning(steps=STEPS, save_every=EVERY, nodes=2))
    job.wait_past(EVERY + 10)
    leader = job.pods()[0]["metadata"]["name"]
    team.kubectl.python(leader, KILL_THE_RANK)
    job.succeed()
    killed, last = job.attempts
    assert (killed["outcome"], killed["exitCode"], killed["reason"]) == ("Failed", 137, "ProcessDied")
    assert last["outcome"] == "Succeeded"
    assert step_of(last["resumedFrom"]) >= EVERY
    assert len(job.pods(attempt=2)) == 2, "a gang starts again whole"


def test_a_trainers_pod_that_is_deleted_saves_first_and_costs_no_retry(team: OnCluster) -> None:
    job = team.submit(tuning(steps=STEPS, save_every=STEPS, retries=0))
    step = job.wait_past(EVERY)
    team.kubectl.run("delete", "pod", job.pods()[0]["metadata"]["name"], "--wait=false")
    job.succeed()
    deleted, last = job.attempts
    assert (deleted["outcome"], last["outcome"]) == ("Preempted", "Succeeded")
    assert step_of(last["resumedFrom"]) >= step, "nothing but the request to stop made a checkpoint"


def test_a_trainer_that_is_evicted_says_so_and_goes_on(team: OnCluster) -> None:
    job = team.submit(tuning(steps=STEPS, save_every=STEPS, retries=0))
    step = job.wait_past(EVERY)
    evict(team, job.pods()[0]["metadata"]["name"])
    job.succeed()
    evicted, last = job.attempts
    assert (evicted["outcome"], evicted["reason"]) == ("Preempted", "Preempted")
    assert "was taken away by the cluster" in evicted["message"]
    assert step_of(last["resumedFrom"]) >= step


def test_an_rljob_goes_on_with_new_servers_after_its_server_was_killed(team: OnCluster) -> None:
    job = team.submit(reinforcement(steps=150, save_every=10))
    job.wait_past(12)
    (server,) = job.pods(role="servers")
    team.kubectl.run("delete", "pod", server["metadata"]["name"], "--force", "--grace-period=0", "--wait=false")
    job.succeed()
    lost, last = job.attempts
    assert lost["outcome"] == "Preempted", "a server that somebody takes away costs no retry"
    assert step_of(last["resumedFrom"]) >= 10
    (trainer,) = job.pods(attempt=2, role="trainer")
    assert trainer["status"]["phase"] == "Succeeded"


def evict(scene: OnCluster, pod: str) -> None:
    """What ``kubectl drain`` asks for."""
    path = f"/api/v1/namespaces/{scene.kubectl.namespace}/pods/{pod}/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    scene.kubectl.run("create", "--raw", path, "-f", "-", text=json.dumps(body))
