"""What the operator writes, as the golden files have it, is what a real API server takes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import API_VERSION
from support.api import Api, ApiError
from support.jobs import job
from support.memory_cluster import pod_templates

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "expected").glob("*.yaml"))
NOON = "2026-01-01T12:00:00Z"


def expected(case: str) -> Json:
    """What a pass over a case leads to."""
    return dict(yaml.load((GOLDEN / "expected" / f"{case}.yaml").read_text(), Loader=yaml.CSafeLoader))


def kind_of(case: str) -> str:
    """The kind of the object that a case is about."""
    first = next(yaml.safe_load_all((GOLDEN / "input" / f"{case}.yaml").read_text()))
    example = GOLDEN.parents[1] / "examples" / first.get("example", "")
    return str(first.get("kind") or yaml.safe_load(example.read_text())["kind"])


def children(case: str) -> Iterator[Json]:
    """What a case creates, as it was sent."""
    for child in expected(case)["create"]:
        del child["metadata"]["namespace"]
        if child["kind"] == "ConfigMap":  # golden files show what is in a file as a mapping
            child["data"] = {file: json.dumps(content) for file, content in child["data"].items()}
        yield child


CREATING = [case for case in CASES if expected(case)["create"]]


@pytest.fixture(scope="module")
def restricted(api: Api) -> Iterator[str]:
    """A namespace that takes restricted pods alone."""
    name, label = "children", "pod-security.kubernetes.io/enforce"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {label: "restricted"}}})
    yield name
    api.delete(Ref("v1", "Namespace", "", name))


def test_the_cases_create_every_kind_of_child() -> None:
    kinds = {child["kind"] for case in CREATING for child in children(case)}
    assert kinds >= {"ConfigMap", "Job", "PyTorchJob", "Service", "StatefulSet"}


@pytest.mark.parametrize("case", CREATING)
def test_children_are_accepted_without_an_unknown_field(api: Api, restricted: str, case: str) -> None:
    for child in children(case):
        api.create(child, namespace=restricted, dry_run=True)


@pytest.mark.parametrize("case", CREATING)
def test_pods_are_admitted_where_pods_must_be_restricted(api: Api, restricted: str, case: str) -> None:
    for child in children(case):
        for template in pod_templates(child):
            api.create(pod(template), namespace=restricted, dry_run=True)


def test_a_pod_that_is_not_restricted_is_refused_there(api: Api, restricted: str) -> None:
    (template, *_) = (template for child in children("finetunejob-minimal") for template in pod_templates(child))
    template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="violates PodSecurity") as refused:
        api.create(pod(template), namespace=restricted, dry_run=True)
    assert refused.value.status == 403


def pod(template: Json) -> Json:
    """The pod that a controller makes from a template."""
    # The account is the namespace's matter: a case may name one that is not there.
    spec = {key: value for key, value in template["spec"].items() if key not in ("serviceAccountName", "nodeName")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}, "spec": spec}


@pytest.mark.parametrize("case", CASES)
def test_a_status_is_accepted_without_an_unknown_field(api: Api, restricted: str, case: str) -> None:
    kind = kind_of(case)
    ref = Ref(API_VERSION, kind, restricted, case)
    api.create(job(kind, case), namespace=restricted)
    assert api.patch_status(ref, timed(expected(case)["status"]))["status"] == timed(expected(case)["status"])


def timed(status: Json) -> Json:
    """A golden status with the times that are left out there."""
    for condition in status.get("conditions", []):
        condition["lastTransitionTime"] = NOON
    for attempt in status.get("attempts", []):
        attempt["startTime"] = NOON
    if "progress" in status:
        status["progress"]["updatedAt"] = NOON
    return status


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ({"replicas": "one"}, "Worker.replicas in body must be of type integer"),
        ({"template": {"spec": {}}}, "Worker.template.spec.containers: Required value"),
        ({"template": {"spec": {"containers": [{"image": "a"}]}}}, r"containers\[0\].name: Required value"),
    ],
)
def test_the_training_operators_own_definition_is_in_force(
    api: Api, namespace: str, worker: Json, message: str
) -> None:
    (child,) = [child for child in children("finetunejob-minimal") if child["kind"] == "PyTorchJob"]
    child["spec"]["pytorchReplicaSpecs"]["Worker"].update(worker)
    with pytest.raises(ApiError, match=message) as refused:
        api.create(child, namespace=namespace, dry_run=True)
    assert refused.value.status == 422
