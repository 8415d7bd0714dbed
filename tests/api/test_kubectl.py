"""The four kinds as kubectl shows them to people."""

import re
import subprocess

import pytest
from posttrain_operator.api.resources import KINDS, Kind
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import API_VERSION
from support.api import Api, Kubectl, table
from support.jobs import job

NOON = "2026-01-01T12:00:00Z"
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def condition(type_: str, status: str, reason: str) -> Json:
    told = {"type": type_, "status": status, "reason": reason, "message": "attempt 2 is at work"}
    return {**told, "observedGeneration": 1, "lastTransitionTime": NOON}


RUNNING: Json = {
    "phase": "Running",
    "conditions": [condition("Ready", "False", "Training"), condition("Succeeded", "False", "Training")],
    "progress": {
        "phase": "training",
        "step": 41,
        "percent": 41,
        "etaSeconds": 3600,
        "headline": "loss 0.83",
        "updatedAt": NOON,
    },
    "attempts": [{"number": 1, "startTime": NOON}, {"number": 2, "startTime": NOON}],
    "artifact": {"uri": "pvc://posttrain/team/thing", "digest": "0" * 64, "type": "model", "bytes": 1},
}


def test_a_row_says_how_it_is_going(api: Api, kubectl: Kubectl, namespace: str) -> None:
    api.create(job(), namespace=namespace)
    api.patch_status(Ref(API_VERSION, "FineTuneJob", namespace, "job"), RUNNING)
    (row,) = table(kubectl("get", "ftj", "--namespace", namespace))
    age = row.pop("AGE")
    assert re.fullmatch(r"\d+s", age)
    assert row == {
        "NAME": "job",
        "PHASE": "Running",
        "PROGRESS": "41",
        "ETA": "3600",
        "METRIC": "loss 0.83",
        "REASON": "Training",
    }


def test_a_wide_row_has_the_attempts_the_artifact_and_the_reason_in_words(
    api: Api, kubectl: Kubectl, namespace: str
) -> None:
    api.create(job(), namespace=namespace)
    api.patch_status(Ref(API_VERSION, "FineTuneJob", namespace, "job"), RUNNING)
    (row,) = table(kubectl("get", "ftj", "--namespace", namespace, "--output", "wide"))
    assert (row["ATTEMPTS"], row["ARTIFACT"]) == ("2", "pvc://posttrain/team/thing")
    assert row["MESSAGE"] == "attempt 2 is at work"


def test_a_new_object_has_a_row(api: Api, kubectl: Kubectl, namespace: str) -> None:
    api.create(job(), namespace=namespace)
    (row,) = table(kubectl("get", "ftj", "--namespace", namespace))
    assert row["NAME"] == "job"


def test_one_word_shows_all_kinds(api: Api, kubectl: Kubectl, namespace: str) -> None:
    for kind in KINDS:
        api.create(job(kind), namespace=namespace)
    shown = kubectl("get", "posttrain", "--namespace", namespace, "--output", "name").split()
    assert sorted(shown) == sorted(f"{kind.name.lower()}.posttrain.dev/job" for kind in KINDS.values())


@every_kind
def test_explain_says_what_a_kind_is_for(kubectl: Kubectl, kind: Kind) -> None:
    assert kind.what in flowing(kubectl("explain", kind.short))


def test_explain_says_type_meaning_and_default_of_a_field(kubectl: Kubectl) -> None:
    said = flowing(kubectl("explain", "finetunejob.spec.run.retries"))
    assert "FIELD: retries <integer>" in said
    assert re.search(r"DESCRIPTION: \S.*preempt.*Default: 3\.", said)


@every_kind
def test_no_field_is_left_unexplained(kubectl: Kubectl, kind: Kind) -> None:
    said = kubectl("explain", f"{kind.short}.spec.run")
    assert "<no description>" not in said


def flowing(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())


def test_wait_returns_once_the_job_has_succeeded(api: Api, kubectl: Kubectl, namespace: str) -> None:
    api.create(job(), namespace=namespace)
    ref = Ref(API_VERSION, "FineTuneJob", namespace, "job")
    api.patch_status(ref, RUNNING)
    arguments = ("wait", "--for=condition=Succeeded", "ftj/job", "--namespace", namespace, "--timeout=60s", "-v=6")
    with subprocess.Popen(
        kubectl.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert any("watch=true" in line for line in waiting.stderr), "kubectl did not begin to watch"
        assert waiting.poll() is None
        api.patch_status(ref, {"phase": "Succeeded", "conditions": [condition("Succeeded", "True", "Succeeded")]})
        said, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, said) == (0, "finetunejob.posttrain.dev/job condition met\n")
