"""The documents that pass between operator and stages: they survive the way, and their digests mean what they say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.progress import Progress, SampleLine, read_history, read_lines
from posttrain_contract.result import MAX_RESULT_BYTES, StageResult
from posttrain_contract.rl import RLSpec
from posttrain_contract.stage import (
    FilterStage,
    FineTuneStage,
    ResolvedInput,
    RLStage,
    RunFacts,
    ServeStage,
    UploadStage,
    canonical,
    config_digest,
    load,
)
from posttrain_contract.upload import UploadSpec
from pydantic import Field, ValidationError

URI = {"uri": "pvc://claim/path"}
RUN = RunFacts(
    kind="RLJob",
    namespace="ns",
    name="x",
    attempt=1,
    folder="store/ns/rljob/x-0",
    uri="pvc://store/ns/rljob/x-0",
    inputs={"model": ResolvedInput(uri="pvc://a/b", path="inputs/model", digest="a" * 64)},
)
RL = RLSpec.parse({"model": URI, "dataset": URI, "rewards": [{"name": "exact-match"}]})
STAGES = [
    FilterStage(run=RUN, spec=FilterSpec.parse({"source": URI, "byLabel": {"column": "rate", "min": 0}})),
    FineTuneStage(run=RUN, spec=FineTuneSpec.parse({"model": URI, "dataset": URI})),
    RLStage(run=RUN, spec=RL, servers=("10.0.0.1",)),
    ServeStage(
        run=RUN,
        tensor_parallel=1,
        max_model_length=16,
        max_sequences=1,
        cache_memory_mi=1,
        precision="bf16",
        seed=0,
    ),
    UploadStage(run=RUN, spec=UploadSpec.parse({"source": URI, "repository": {"id": "a/b"}})),
]


def change(config: Any, **values: Any) -> Any:
    """The configuration with other facts of its run."""
    return config.model_copy(update={"run": config.run.model_copy(update=values)})


@pytest.mark.parametrize("config", STAGES, ids=lambda config: config.stage)
def test_a_configuration_survives_the_way_to_the_stage(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    path.write_text(canonical(config.dump()), encoding="utf-8")
    loaded = load(path)
    assert loaded == config
    assert config_digest(loaded) == config_digest(config)


@pytest.mark.parametrize("config", STAGES, ids=lambda config: config.stage)
def test_an_unknown_field_of_a_configuration_is_refused(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    path.write_text(canonical(config.dump() | {"extra": 1}), encoding="utf-8")
    with pytest.raises(ValidationError, match="extra"):
        load(path)


def test_the_digest_is_of_what_decides_the_artifact() -> None:
    config = STAGES[2]
    assert isinstance(config, RLStage)
    digest = config_digest(config)
    assert config_digest(config.model_copy(update={"servers": ("10.0.0.2", "10.0.0.3")})) == digest
    assert config_digest(change(config, name="y")) != digest
    inputs = {"model": ResolvedInput(uri="pvc://a/b", path="inputs/model", digest="b" * 64)}
    assert config_digest(change(config, inputs=inputs)) != digest
    other = RL.model_copy(update={"training": RL.training.model_copy(update={"seed": 1})})
    assert config_digest(config.model_copy(update={"spec": other})) != digest


class LaterSpec(FineTuneSpec):
    """What a later release may make of a specification."""

    added: int = Field(default=7, description="A field that this release does not know.")


class LaterStage(FineTuneStage):
    spec: LaterSpec


def test_a_field_that_a_later_release_adds_changes_the_digest_only_where_it_is_used() -> None:
    config = next(config for config in STAGES if isinstance(config, FineTuneStage))
    spec = config.spec.model_dump(by_alias=True, exclude_unset=True)
    facts = config.run.model_dump(by_alias=True)
    later = LaterStage.parse({"run": facts, "spec": spec})
    assert later.spec.added == 7
    assert config_digest(later) == config_digest(config)
    assert config_digest(LaterStage.parse({"run": facts, "spec": {**spec, "added": 8}})) != config_digest(config)


def test_what_is_said_and_what_is_meant_anyway_have_one_digest() -> None:
    config = next(config for config in STAGES if isinstance(config, FineTuneStage))
    assert config_digest(FineTuneStage.parse(config.dump())) == config_digest(config)


@pytest.mark.parametrize("config", STAGES, ids=lambda config: config.stage)
@pytest.mark.parametrize(
    "changed",
    [{"attempt": 2}, {"gpus": 8}, {"folder": "store/other", "uri": "pvc://other"}],
    ids=lambda c: next(iter(c)),
)
def test_what_may_change_between_attempts_does_not_change_the_digest(config: Any, changed: dict[str, Any]) -> None:
    assert config_digest(change(config, **changed)) == config_digest(config)


def test_canonical_json_does_not_depend_on_the_order() -> None:
    assert canonical({"b": [1, 2], "a": "é"}) == canonical({"a": "é", "b": [1, 2]}) == '{"a":"é","b":[1,2]}'


def all_models(kind: type[Model] = Model) -> Iterator[type[Model]]:
    """Every class of the contract."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("posttrain_contract"):
            yield child
            yield from all_models(child)


def specified(kind: type[Model], *, seen: set[type[Model]]) -> set[type[Model]]:
    """The classes that users write: those that a specification reaches."""
    seen.add(kind)
    for info in kind.model_fields.values():
        for child in all_models():
            if child not in seen and child.__name__ in repr(info.annotation):
                specified(child, seen=seen)
    return seen


USER_FIELDS = sorted(
    {
        (kind, name)
        for spec in (FilterSpec, FineTuneSpec, RLSpec, UploadSpec)
        for kind in specified(spec, seen=set())
        for name in kind.model_fields
    },
    key=str,
)


def test_the_fields_that_users_write_are_found() -> None:
    assert len(USER_FIELDS) > 60


@pytest.mark.parametrize(("kind", "name"), USER_FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_that_a_user_writes_is_described(kind: type[Model], name: str) -> None:
    field = kind.model_fields[name]
    assert field.description, f"{kind.__name__}.{name} has no description"
    assert field.description.endswith(".")
    assert kind.__doc__, f"{kind.__name__} has no docstring"


WITHOUT_DEFAULT = [
    (kind, name)
    for kind, name in USER_FIELDS
    if not kind.model_fields[name].is_required() and kind.model_fields[name].default is None
]


def test_the_fields_without_a_default_are_found() -> None:
    assert len(WITHOUT_DEFAULT) > 10


@pytest.mark.parametrize(("kind", "name"), WITHOUT_DEFAULT, ids=lambda value: getattr(value, "__name__", value))
def test_what_happens_when_a_field_without_a_default_is_left_out_is_said(kind: type[Model], name: str) -> None:
    """``kubectl explain`` shows the other defaults by their value."""
    assert re.search(r"[;.] absent: [^;]+\.$", kind.model_fields[name].description or "", re.IGNORECASE)


def result(**values: Any) -> StageResult:
    """A failed result."""
    return StageResult(outcome="Failed", exit_code=ExitCode.DATA, reason="X", **values)


@pytest.mark.parametrize(
    "text", ["a" * 9000, "漢字" * 3000, '"\\\n' * 3000, "🙂" * 3000], ids=["a", "wide", "escaped", "emoji"]
)
def test_a_long_message_is_cut_no_more_than_needed(text: str) -> None:
    data = result(message=text, metrics={"loss": 0.5}).message_bytes()
    assert MAX_RESULT_BYTES - 8 <= len(data) <= MAX_RESULT_BYTES
    shown = StageResult.parse(json.loads(data))
    assert text.startswith(shown.message)
    assert shown.metrics == {"loss": 0.5}


def test_too_many_metrics_are_left_out_before_the_artifact_is() -> None:
    artifact = ArtifactSummary(uri="pvc://a/b", digest="a" * 64, type="model", bytes=1)
    data = result(message="x", metrics={f"metric{n}": 0.123 for n in range(500)}, artifact=artifact).message_bytes()
    shown = StageResult.parse(json.loads(data))
    assert (shown.artifact, shown.message, shown.metrics) == (artifact, "x", {})


def test_a_short_result_is_whole() -> None:
    whole = result(message="x", metrics={"loss": 0.5}, resumed_from="checkpoint-3")
    assert StageResult.parse(json.loads(whole.message_bytes())) == whole


def test_exit_codes_keep_their_convention() -> None:
    retriable = {code for code in ExitCode if code.retriable}
    assert retriable == {code for code in ExitCode if code >= 128}
    assert {code.value for code in ExitCode if code.preempted} == {143, 144}
    assert not ExitCode.DATA.retriable


@pytest.mark.parametrize(("step", "total", "percent"), [(1, 4, 25.0), (5, 4, 100.0), (1, None, None), (0, 0, None)])
def test_percent_is_told_when_the_total_is_known(step: int, total: int | None, percent: float | None) -> None:
    assert Progress(phase="x", step=step, total_steps=total, updated_at=0).percent == percent


def test_the_history_is_read_by_figure_and_step_and_the_later_line_holds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [(2, {"loss": 2.0}), (1, {"loss": 3.0, "reward": 0.1}), (3, {"loss": 9.0}), (2, {"loss": 1.0})]
    text = "".join(json.dumps({"step": step, "metrics": metrics}) + "\n" for step, metrics in lines)
    path.write_text(text + '{"step": 4, "met', encoding="utf-8")
    history = read_history(path)
    assert history == {"loss": {1: 3.0, 2: 1.0, 3: 9.0}, "reward": {1: 0.1}}
    assert list(history["loss"]) == [1, 2, 3]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl") == {}
    assert not list(read_lines(tmp_path / "samples.jsonl", SampleLine))
