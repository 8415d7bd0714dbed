"""The four kinds as a real API server takes, refuses and keeps them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from posttrain_operator.api.resources import KINDS, is_ours
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import API_VERSION
from support.api import Api, ApiError, Kubectl
from support.jobs import SPECS, job

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/input"
REFUSED = {"invalid-spec"}
"""Golden cases whose object only an older definition can have let in."""
CRD = "apiextensions.k8s.io/v1"
OTHER = {"uri": "pvc://data/other"}

every_kind = pytest.mark.parametrize("kind", KINDS)


def ref(namespace: str, kind: str = "FineTuneJob", name: str = "job") -> Ref:
    return Ref(API_VERSION, kind, namespace, name)


def object_of(case: str) -> Json | None:
    """What a golden case is about, as its user wrote it; None where that is one of the examples."""
    first = next(yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text()))
    return {key: first[key] for key in ("apiVersion", "kind", "metadata", "spec")} if is_ours(first) else None


def refusal(api: Api, obj: Json, namespace: str) -> str:
    """What the API server says about an object that it does not take."""
    with pytest.raises(ApiError) as refused:
        api.create(obj, namespace=namespace, dry_run=True)
    assert (refused.value.status, refused.value.reason) == (422, "Invalid"), refused.value
    return refused.value.message


@every_kind
def test_a_kind_is_established(api: Api, kind: str) -> None:
    definition = api.get(Ref(CRD, "CustomResourceDefinition", "", f"{KINDS[kind].plural}.posttrain.dev"))
    conditions = {condition["type"]: condition["status"] for condition in definition["status"]["conditions"]}
    assert conditions == {"Established": "True", "NamesAccepted": "True"}


def test_the_golden_objects_are_accepted(kubectl: Kubectl, namespace: str) -> None:
    objects = [obj for path in GOLDEN.glob("*.yaml") if path.stem not in REFUSED and (obj := object_of(path.stem))]
    assert len(objects) > 30
    for number, obj in enumerate(objects):
        obj["metadata"] = {"name": f"case-{number}", "labels": obj["metadata"].get("labels", {})}
    arguments = ("apply", "--dry-run=server", "--namespace", namespace, "--filename", "-")
    assert len(kubectl(*arguments, stdin=yaml.safe_dump_all(objects)).splitlines()) == len(objects)


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_golden_object_with_an_invalid_spec_is_refused(kubectl: Kubectl, namespace: str, case: str) -> None:
    arguments = ("apply", "--dry-run=server", "--namespace", namespace, "--filename", "-")
    done = kubectl.run(*arguments, stdin=yaml.safe_dump(object_of(case)))
    assert done.returncode == 1
    assert 'unknown field "spec.byLable"' in done.stderr


def test_a_missing_field_is_named(api: Api, namespace: str) -> None:
    obj = job()
    del obj["spec"]["dataset"]
    assert "spec.dataset: Required value" in refusal(api, obj, namespace)


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("FineTuneJob", {"model": {}}, "spec.model: Invalid value: set exactly one of from and uri"),
        ("FineTuneJob", {"model": {**OTHER, "from": "FineTuneJob/sft"}}, "set exactly one of from and uri"),
        ("FilterJob", {"source": {}}, "spec.source: Invalid value: set exactly one of from and uri"),
        ("UploadJob", {"source": {}}, "spec.source: Invalid value: set exactly one of from and uri"),
        ("RLJob", {"dataset": {}}, "spec.dataset: Invalid value: set exactly one of from and uri"),
        ("FineTuneJob", {"model": {"uri": "pvc://data/a/../b"}}, "must not have '.' or '..' as a path segment"),
        ("FineTuneJob", {"export": {"merge": False}}, "export.merge: false needs an adapter"),
        ("FineTuneJob", {"training": {"epochs": -1}}, "spec.training.epochs: Invalid value: -1"),
        ("FineTuneJob", {"method": "magic"}, 'spec.method: Unsupported value: "magic"'),
        ("RLJob", {"rewards": []}, "spec.rewards: Invalid value: 0: spec.rewards in body should have at least 1 items"),
        ("RLJob", {"grpo": {"groupSize": 7}}, "groupSize"),
        ("UploadJob", {"trainingData": {"source": OTHER, "repository": {"id": "acme/thing"}}}, "must differ from"),
        ("FineTuneJob", {"run": {"tolerations": [{}]}}, "without key, set operator: Exists"),
        ("FineTuneJob", {"run": {"retries": -1}}, "spec.run.retries: Invalid value: -1"),
        ("FineTuneJob", {"run": {"deadline": "soon"}}, 'spec.run.deadline: Invalid value: "soon"'),
    ],
)
def test_a_contradiction_is_refused_with_a_word_about_it(
    api: Api, namespace: str, kind: str, spec: Json, message: str
) -> None:
    assert message in refusal(api, job(kind, **spec), namespace)


@every_kind
@pytest.mark.parametrize("name", ["1st", "a.b", "a" * 64])
def test_a_name_that_pods_cannot_have_is_refused(api: Api, namespace: str, kind: str, name: str) -> None:
    assert "metadata.name must be a DNS label" in refusal(api, job(kind, name), namespace)


@every_kind
def test_the_longest_name_is_accepted(api: Api, namespace: str, kind: str) -> None:
    api.create(job(kind, "a" * 63), namespace=namespace, dry_run=True)


@every_kind
def test_defaults_are_not_written_into_an_object(api: Api, namespace: str, kind: str) -> None:
    assert api.create(job(kind), namespace=namespace)["spec"] == SPECS[kind]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("FilterJob", "source", OTHER),
        ("FilterJob", "byLabel", {"column": "rate", "max": 0.6}),
        ("FilterJob", "output", {"rowsPerShard": 5}),
        ("FineTuneJob", "model", OTHER),
        ("FineTuneJob", "dataset", OTHER),
        ("FineTuneJob", "method", "sft"),
        ("FineTuneJob", "training", {"seed": 1}),
        ("FineTuneJob", "distributed", {"nodes": 2}),
        ("RLJob", "rewards", [{"name": "exact-match", "weight": 2}]),
        ("RLJob", "rollout", {"maxModelLength": 64}),
        ("UploadJob", "repository", {"id": "acme/other"}),
    ],
)
def test_what_to_do_cannot_be_changed(api: Api, namespace: str, kind: str, field: str, value: Any) -> None:
    api.create(job(kind), namespace=namespace)
    with pytest.raises(ApiError) as refused:
        api.patch(ref(namespace, kind), {"spec": {field: value}})
    assert refused.value.status == 422
    assert f"spec.{field} cannot be changed after creation; create a new object" in refused.value.message


def test_what_to_do_cannot_be_taken_back(api: Api, namespace: str) -> None:
    api.create(job(training={"seed": 1}), namespace=namespace)
    with pytest.raises(ApiError, match=re.escape("spec.training cannot be changed after creation")):
        api.patch(ref(namespace), {"spec": {"training": None}})


@every_kind
def test_where_and_how_to_run_can_be_changed(api: Api, namespace: str, kind: str) -> None:
    api.create(job(kind), namespace=namespace)
    for run in ({"suspend": True}, {"suspend": False, "retries": 7, "env": [{"name": "A", "value": "b"}]}, None):
        changed = api.patch(ref(namespace, kind), {"spec": {"run": run}})
    assert changed["metadata"]["generation"] == 4
    assert changed["spec"] == SPECS[kind]


@every_kind
def test_the_status_is_written_apart_from_the_rest(api: Api, namespace: str, kind: str) -> None:
    created = api.create({**job(kind), "status": {"phase": "Succeeded"}}, namespace=namespace)
    assert "status" not in created
    api.patch(ref(namespace, kind), {"status": {"phase": "Succeeded"}})
    assert "status" not in api.get(ref(namespace, kind))

    written = api.patch(
        ref(namespace, kind), {"status": {"phase": "Running"}, "spec": {"run": {"retries": 1}}}, subresource="status"
    )
    assert written["status"] == {"phase": "Running"}
    assert written["spec"] == SPECS[kind]
    assert written["metadata"]["generation"] == 1


@every_kind
def test_a_status_that_nobody_defined_is_refused(api: Api, namespace: str, kind: str) -> None:
    api.create(job(kind), namespace=namespace)
    with pytest.raises(ApiError, match=r"status\.attempts\[0\]\.number"):
        api.patch_status(ref(namespace, kind), {"attempts": [{"number": "one"}]})


def test_a_status_written_over_a_newer_object_conflicts(api: Api, namespace: str) -> None:
    seen = api.create(job(), namespace=namespace)
    api.patch(ref(namespace), {"spec": {"run": {"retries": 1}}})
    with pytest.raises(ApiError) as refused:
        api.patch(
            ref(namespace),
            {"metadata": {"resourceVersion": seen["metadata"]["resourceVersion"]}, "status": {"phase": "Running"}},
            subresource="status",
        )
    assert (refused.value.status, refused.value.reason) == (409, "Conflict")
