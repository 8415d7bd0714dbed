"""The operator's pod is killed, and namespaces are deleted: jobs run on, and nothing is left."""

import pytest
from support.installed_operator import WRITES, InstalledOperator
from support.kubectl import NamespacedKubectl
from support.on_cluster import OnCluster
from support.tiny_jobs import filtering, reinforcement, tuning
from support.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_a_job_runs_on_while_the_operator_is_killed_and_replaced(operator: InstalledOperator, team: OnCluster) -> None:
    job = team.submit(tuning(steps=3000))
    job.wait_past(50)
    (before,) = operator.pods()
    operator.kill()
    (after,) = operator.pods()
    assert before != after
    job.succeed()
    (attempt,) = job.attempts
    assert (attempt["outcome"], attempt.get("resumedFrom")) == ("Succeeded", None), "nobody stopped its pods"
    assert len(job.pods()) == 1
    assert [child["kind"] for child in team.children.values() if child["kind"] == "PyTorchJob"] == ["PyTorchJob"]


def test_a_deleted_namespace_leaves_nothing_and_the_operator_quiet(
    operator: InstalledOperator, team: OnCluster
) -> None:
    running = team.submit(tuning(steps=100_000))
    waiting = team.submit(filtering("waiting") | {"spec": {**filtering()["spec"], "source": {"from": "FilterJob/no"}}})
    suspended = team.submit(filtering("suspended", suspend=True))
    waiting.reach("WaitingForArtifact")
    suspended.reach("Suspended")
    running.wait_past(10)
    starting = team.submit(reinforcement(steps=10))
    team.wait_for(lambda: bool(starting.pods(role="servers")), "a pod of the servers")
    since = operator.now()
    team.kubectl.run("delete", "namespace", team.kubectl.namespace, "--wait=false")
    team.wait_until_gone(seconds=180)
    wait_for(lambda: volumes_of(team) == [], "its volumes to go", seconds=60, pause=2)
    asked = operator.requests_between_renewals(10)
    assert {verb: asked[verb] for verb in WRITES} == dict.fromkeys(WRITES, 0), "there is nothing left to write to"
    # A renewal is one GET and one PUT, and a sweep of all kinds once a minute may have come between.
    assert asked["GET"] <= asked["PUT"] + 40
    assert operator.errors(since=since) == []


def volumes_of(team: OnCluster) -> list[str]:
    """The PersistentVolumes that were made for claims of a namespace."""
    volumes = NamespacedKubectl("default").objects("PersistentVolume")
    claims = [volume["spec"].get("claimRef", {}) for volume in volumes]
    return [claim["name"] for claim in claims if claim.get("namespace") == team.kubectl.namespace]
