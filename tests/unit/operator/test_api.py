"""The four kinds, from what a user wrote to frozen values, or to every problem at once; and the status."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.rl import RLSpec
from posttrain_contract.upload import UploadSpec
from posttrain_operator.api.quantities import to_timedelta
from posttrain_operator.api.resources import KINDS, NAME_RULE, Resource, is_ours, parse, read_spec, upstream_refs
from posttrain_operator.api.run import RunSpec
from posttrain_operator.api.status import Attempt, Condition, InputStatus, ProgressStatus, Status, read_status
from posttrain_operator.cluster import Ref
from posttrain_operator.errors import InvalidSpec
from pydantic import ValidationError

Json = dict[str, Any]

DATA = {"uri": "pvc://data/train"}
SPECS: dict[str, Json] = {
    "FilterJob": {"source": DATA, "byLabel": {"column": "pass_rate", "max": 0.5}},
    "FineTuneJob": {"model": DATA, "dataset": {"from": "FilterJob/hard"}},
    "RLJob": {"model": {"from": "FineTuneJob/sft"}, "dataset": DATA, "rewards": [{"name": "exact-match"}]},
    "UploadJob": {"source": {"from": "RLJob/grpo"}, "repository": {"id": "acme/model"}},
}


def raw_object(kind: str, *, spec: Any = None, name: str = "x") -> Json:
    """An object of a kind as the API server gives it, with a right spec unless another is given."""
    return {
        "apiVersion": "posttrain.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "team", "uid": "u-1", "generation": 2},
        "spec": SPECS[kind] if spec is None else spec,
    }


def complaints(raw: Json) -> dict[str, str]:
    """Every problem with an object, by field."""
    with pytest.raises(InvalidSpec) as caught:
        parse(raw)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_each_kind_is_parsed_into_its_class() -> None:
    specs = {kind: type(parse(raw_object(kind)).spec) for kind in SPECS}
    assert specs == {
        "FilterJob": FilterSpec,
        "FineTuneJob": FineTuneSpec,
        "RLJob": RLSpec,
        "UploadJob": UploadSpec,
    }


def test_a_resource_tells_whose_it_is_and_what_it_reads() -> None:
    resource = parse(raw_object("FineTuneJob", name="sft"))
    assert isinstance(resource, Resource)
    assert resource.ref == Ref("posttrain.dev/v1alpha1", "FineTuneJob", "team", "sft")
    assert (resource.uid, resource.generation) == ("u-1", 2)
    assert set(resource.inputs) == {"model", "dataset"}
    assert resource.run == RunSpec()


def test_run_is_read_apart_from_what_to_do() -> None:
    run = {"queue": "team-a", "retries": 0, "deadline": "1h30m", "resources": {"gpus": 8, "gpuResource": "amd.com/gpu"}}
    resource = parse(raw_object("RLJob", spec={**SPECS["RLJob"], "run": run}))
    assert (resource.run.queue, resource.run.retries, resource.run.resources.gpus) == ("team-a", 0, 8)
    assert resource.run.resources.gpu_resource == "amd.com/gpu"
    assert resource.run.resources.memory == "4Gi"


def test_only_the_four_kinds_are_ours() -> None:
    assert all(is_ours(raw_object(kind)) for kind in KINDS)
    assert not is_ours({**raw_object("RLJob"), "apiVersion": "posttrain.dev/v2"})
    assert not is_ours({"apiVersion": "posttrain.dev/v1alpha1", "kind": "PodJob"})


def test_every_problem_is_told_at_once_in_the_order_name_what_run() -> None:
    spec = {
        "source": {**DATA, "from": "FilterJob/a"},
        "byLable": {},
        "parallelism": "two",
        "run": {"retries": -1, "resources": {"gpu": 1}},
    }
    found = complaints(raw_object("FilterJob", spec=spec, name="Not.a.label"))
    assert found == {
        "metadata.name": NAME_RULE.message,
        "spec.source": "set exactly one of from and uri",
        "spec.byLabel": "required field is missing",
        "spec.parallelism": "input should be a valid integer, found 'two'",
        "spec.byLable": "unknown field",
        "spec.run.retries": "input should be greater than or equal to 0, found -1",
        "spec.run.resources.gpu": "unknown field",
    }
    assert next(iter(found)) == "metadata.name"
    assert list(found)[-1].startswith("spec.run.")


def test_an_item_of_a_list_is_named_by_its_position() -> None:
    spec = {**SPECS["RLJob"], "rewards": [{"name": "exact-match"}, {"name": "exact-match", "weight": "high"}]}
    assert complaints(raw_object("RLJob", spec=spec)).keys() == {"spec.rewards[1].weight"}


def test_python_spellings_are_no_field_names() -> None:
    spec = {**SPECS["FilterJob"], "byLabel": {"column": "p", "max": 1}, "output": {"rows_per_shard": 5}}
    assert complaints(raw_object("FilterJob", spec=spec)) == {"spec.output.rows_per_shard": "unknown field"}


@pytest.mark.parametrize(("spec", "message"), [([], "must be a mapping"), ("x", "must be a mapping")])
def test_a_spec_that_is_no_mapping_is_told(spec: Any, message: str) -> None:
    assert message in complaints(raw_object("RLJob", spec=spec))["spec"]


def test_a_missing_spec_or_name_is_told() -> None:
    found, spec, run = read_spec({"kind": "RLJob", "metadata": None})
    assert [(problem.field, problem.kind) for problem in found] == [("metadata.name", "missing"), ("spec", "missing")]
    assert (spec, run) == (None, None)


def test_what_an_object_reads_from_others_by_field() -> None:
    spec = {**SPECS["RLJob"], "evaluation": {"generate": {"dataset": {"from": "FilterJob/held-out"}}}}
    assert upstream_refs(raw_object("RLJob", spec=spec)) == {
        "model": Ref("posttrain.dev/v1alpha1", "FineTuneJob", "team", "sft"),
        "evaluation.generate.dataset": Ref("posttrain.dev/v1alpha1", "FilterJob", "team", "held-out"),
    }


def test_a_broken_object_reads_from_nobody() -> None:
    assert upstream_refs(raw_object("UploadJob", spec={"source": {"from": "RLJob/x"}})) == {}


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90m", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1d1h1m1s", timedelta(days=1, hours=1, minutes=1, seconds=1)),
        ("999999d" * 4, timedelta(days=4 * 999_999)),
    ],
)
def test_a_duration_in_words_is_a_time_span(text: str, span: timedelta) -> None:
    assert RunSpec.parse({"deadline": text}).deadline == text
    assert to_timedelta(text) == span


@pytest.mark.parametrize("run", [{"retries": 3.5}, {"suspend": "no"}, {"nodeSelector": {"a b": "c"}}, {"env": {}}])
def test_run_takes_no_value_that_the_api_server_would_not_take(run: Json) -> None:
    with pytest.raises(ValidationError):
        RunSpec.parse(run)


NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
READY = Condition(type="Ready", status="True", reason="Succeeded", last_transition_time=NOON, observed_generation=1)
FULL = Status(
    observed_generation=1,
    phase="Succeeded",
    conditions=(READY, READY.model_copy(update={"type": "Succeeded"})),
    inputs={"model": InputStatus(uri="pvc://data/m")},
    attempts=(Attempt(number=1, start_time=NOON, end_time=NOON, outcome="Preempted", exit_code=143),),
    progress=ProgressStatus(
        phase="training", step=3, total_steps=10, percent=30, metrics={"loss": 0.5}, updated_at=NOON
    ),
    artifact=ArtifactSummary(uri="pvc://posttrain/x", digest="0" * 64, type="model", bytes=5, parameters=2),
    start_time=NOON,
    completion_time=NOON,
)


def test_a_status_survives_writing_and_reading() -> None:
    assert read_status(FULL.to_json()) == FULL


def test_a_written_status_has_no_nulls_and_camel_case_keys() -> None:
    written = FULL.to_json()
    assert "null" not in json.dumps(written)
    assert written["attempts"] == [
        {
            "number": 1,
            "startTime": "2026-03-01T12:00:00Z",
            "endTime": "2026-03-01T12:00:00Z",
            "outcome": "Preempted",
            "exitCode": 143,
        }
    ]


def test_times_are_written_in_utc() -> None:
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    assert Status(start_time=tokyo).to_json()["startTime"] == "2026-03-01T12:00:00Z"


def test_conditions_are_asked_by_type() -> None:
    assert FULL.condition("Ready") == READY
    assert FULL.holds("Succeeded")
    assert FULL.finished
    assert not Status().finished
    assert Status().condition("Ready") is None


@pytest.mark.parametrize("garbled", [None, {}, {"phase": "Dancing"}, {"conditions": [{}]}, {"surprise": 1}, ["x"], "x"])
def test_an_absent_or_garbled_status_counts_as_none(garbled: Any) -> None:
    assert read_status(garbled) == Status()
