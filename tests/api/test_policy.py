"""manifests/policy: whoever may create jobs, and no pods, runs nothing but what an administrator lists."""

from collections.abc import Iterator
from typing import Final

import pytest
import yaml
from posttrain_operator.cluster import Json
from posttrain_operator.settings import STAGES
from support.api import Api, ApiError
from support.control_plane import ControlPlane
from support.jobs import SPECS, job
from support.manifests import build
from support.tools import Tools
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

DIGEST: Final = f"@sha256:{'0' * 64}"
ALLOWED: Final = [
    {},
    {"image": f"ghcr.io/posttrain/finetune{DIGEST}"},
    {"image": f"ghcr.io/posttrain/finetune:0.1.0{DIGEST}", "serviceAccountName": "default"},
]
IMAGE, ACCOUNT = "spec.run.image must be named by its digest", "spec.run.serviceAccountName must be one of: default"
REFUSED: Final = [
    ({"image": "ghcr.io/posttrain/finetune:0.1.0"}, IMAGE),
    ({"image": f"ghcr.io/posttrain{DIGEST}"}, IMAGE),
    ({"image": f"docker.example/ghcr.io/posttrain/finetune{DIGEST}"}, IMAGE),
    ({"serviceAccountName": "builder"}, ACCOUNT),
]


@pytest.fixture(scope="module")
def admin(own_control_plane: ControlPlane, tools: Tools) -> Iterator[Api]:
    """An administrator of a cluster with the policy in force."""
    with own_control_plane.access.api() as api:
        for name in ("posttrain-system", "team"):
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        made = yaml.safe_dump_all(build(tools.program("kubectl"), "policy"))
        own_control_plane.access.kubectl("apply", "--server-side", "--filename", "-", stdin=made)
        wait_for(lambda: bool(refusal(api, "RLJob", {"serviceAccountName": "builder"})), "the policy in force")
        yield api


def refusal(api: Api, kind: str, run: Json) -> str:
    """What the API server says against a job; nothing when it takes it."""
    try:
        api.create(job(kind, "tried", run=run), namespace="team", dry_run=True)
    except ApiError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", SPECS)
def test_listed_images_by_digest_are_taken_and_nothing_else(admin: Api, kind: str) -> None:
    assert [refusal(admin, kind, run) for run in ALLOWED] == [""] * len(ALLOWED)
    for run, why in REFUSED:
        assert why in refusal(admin, kind, run), run


def test_a_job_without_run_is_taken(admin: Api) -> None:
    admin.create(job(name="without-run"), namespace="team", dry_run=True)


def test_without_the_list_no_job_is_taken(admin: Api, own_control_plane: ControlPlane) -> None:
    kubectl = own_control_plane.access.kubectl
    name = ("--namespace", "posttrain-system", "configmap", "posttrain-allowed")
    kept = kubectl("get", *name, "--output", "yaml")
    kubectl("delete", *name)
    wait_for(lambda: bool(refusal(admin, "RLJob", {})), "a refusal")
    kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=_bare(kept))
    wait_for(lambda: not refusal(admin, "RLJob", {}), "the list in force again")


def test_the_operators_own_images_have_the_listed_beginning(tools: Tools) -> None:
    (allowed,) = [obj for obj in build(tools.program("kubectl"), "policy") if obj["kind"] == "ConfigMap"]
    assert all(f"ghcr.io/posttrain/{stage}".startswith(allowed["data"]["images"]) for stage in STAGES)


def _bare(text: str) -> str:
    """An object without what the API server has put on it."""
    obj = yaml.safe_load(text)
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace", "labels")}
    return yaml.safe_dump({**obj, "metadata": metadata})
