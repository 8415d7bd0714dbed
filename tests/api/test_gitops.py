"""Objects that a GitOps tool applies again and again: nothing of them differs, and what has ended is not done again."""

import pytest
import yaml
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import API_VERSION
from support.api import Api, Kubectl
from support.argo import ACTIONS, CONFIG_MAP, act, script
from support.jobs import SPECS, job
from support.playground import PlayedJob, Playground
from support.pod_lives import runs, works
from support.release import ROOT
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

every_kind = pytest.mark.parametrize("kind", SPECS)
AS_ARGO_CD = ("--server-side", "--force-conflicts", "--field-manager=argocd-controller")


def sync(ground: Playground, kubectl: Kubectl, manifest: Json) -> None:
    """What a tool does whenever Git or the cluster has changed."""
    kubectl("apply", *AS_ARGO_CD, "--namespace", ground.namespace, "--filename", "-", stdin=yaml.safe_dump(manifest))


def drift(ground: Playground, kubectl: Kubectl, manifest: Json) -> str:
    """What a tool would change, by a server-side diff."""
    arguments = ("diff", *AS_ARGO_CD, "--namespace", ground.namespace, "--filename", "-")
    done = kubectl.run(*arguments, stdin=yaml.safe_dump(manifest))
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def applied(ground: Playground, kubectl: Kubectl, manifest: Json) -> PlayedJob:
    """The job that a manifest leads to."""
    sync(ground, kubectl, manifest)
    ref = Ref(API_VERSION, manifest["kind"], ground.namespace, manifest["metadata"]["name"])
    found = PlayedJob(ref, ground.api.get(ref)["metadata"]["uid"], ground.api, ground.chronicle)
    wait_for(lambda: found.history != [], f"{ref} to be seen")
    return found


@every_kind
def test_a_job_is_in_sync_after_a_whole_life_and_is_not_run_again(
    ground: Playground, kubectl: Kubectl, kind: str
) -> None:
    manifest = job(kind, f"{kind.lower()}-synced", run={"ttlAfterFinished": "1s"})
    ground.lives[kind, manifest["metadata"]["name"]] = works
    found = applied(ground, kubectl, manifest)
    found.finish()
    found.wait(lambda: found.children == [], "lose its children")
    made, status = found.made, found.status
    assert drift(ground, kubectl, manifest) == ""
    sync(ground, kubectl, manifest)
    ground.submit("UploadJob").finish()  # by then the operator has seen whatever there was to see
    assert (found.made, found.status) == (made, status)
    assert found.raw["metadata"]["generation"] == 1


def test_a_job_suspended_by_an_action_stays_in_sync_and_suspended(ground: Playground, kubectl: Kubectl) -> None:
    manifest = job("FilterJob", "paused")
    ground.lives["FilterJob", "paused"] = runs
    found = applied(ground, kubectl, manifest)
    found.reach("Running")
    for action, phase in (("suspend", "Suspended"), ("resume", "Running")):
        found.edit(**act(action, found.raw)["spec"]["run"])
        found.reach(phase)
        assert drift(ground, kubectl, manifest) == "", "Git says nothing of run.suspend"
        sync(ground, kubectl, manifest)
        assert found.state[0] == phase
    contrary = job("FilterJob", "paused", run={"suspend": True})
    assert "+    suspend: true" in drift(ground, kubectl, contrary), "what Git does say is put back"


def test_a_retried_job_is_taken_and_runs(ground: Playground) -> None:
    failed = ground.submit("UploadJob", run={"deadline": "1s"}, life=runs)
    failed.finish("Failed", "DeadlineExceeded")
    again = act("retry", ground.api.get(failed.ref))
    del again["spec"]["run"]
    ground.lives["UploadJob", again["metadata"]["name"]] = works
    created = ground.api.create(again)
    retried = PlayedJob(Ref.of(created), created["metadata"]["uid"], ground.api, ground.chronicle)
    wait_for(lambda: retried.history != [], "the retry to be seen")
    retried.finish()
    assert failed.state == ("Failed", "DeadlineExceeded")


def test_the_settings_join_those_that_argo_cd_has(api: Api, kubectl: Kubectl) -> None:
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": {"url": "https://cd"}}
    api.create(theirs, namespace="argocd")
    kubectl("apply", "--server-side", "--filename", str(ROOT / "argocd" / CONFIG_MAP))
    data = api.get(Ref("v1", "ConfigMap", "argocd", "argocd-cm"))["data"]
    assert data["url"] == "https://cd"
    assert data["resource.customizations.health.posttrain.dev_RLJob"] == script("health")
    assert all(f"name: {action}" in data["resource.customizations.actions.posttrain.dev_RLJob"] for action in ACTIONS)
