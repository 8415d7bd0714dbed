"""What the contract refuses: every rule between fields once, unknown fields, wrong spellings, values out of range."""

import inspect
from typing import Any

import pytest
from posttrain_contract import (
    adapter,
    distributed,
    evaluation,
    examples,
    finetune,
    inputs,
    preference,
    rl,
    tracking,
    training,
    upload,
)
from posttrain_contract import filter as filter_module
from posttrain_contract.base import Model, problems
from posttrain_contract.distributed import Distributed
from posttrain_contract.examples import ExampleDataset
from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.preference import Dpo
from posttrain_contract.rl import RLSpec
from posttrain_contract.upload import UploadSpec
from pydantic import ValidationError

URI = {"uri": "pvc://claim/path"}
FILTER: dict[str, Any] = {"source": URI, "byLabel": {"column": "rate", "max": 0.5}}
FINE_TUNE: dict[str, Any] = {"model": URI, "dataset": URI}
ASIDE = URI | {"validation": 0.1}
PAIRS: dict[str, Any] = {"method": "dpo", "dataset": URI | {"format": "preference"}}
RL: dict[str, Any] = {"model": URI, "dataset": URI, "rewards": [{"name": "exact-match"}]}
UPLOAD: dict[str, Any] = {"source": URI, "repository": {"id": "acme/model"}}


def found(kind: type[Model], data: dict[str, Any]) -> list[tuple[str, str]]:
    """Field and sentence of every problem."""
    with pytest.raises(ValidationError) as caught:
        kind.parse(data)
    return [(problem.field, problem.message) for problem in problems(caught.value)]


BROKEN: list[tuple[type[Model], dict[str, Any], str, str]] = [
    (FilterSpec, FILTER | {"byLabel": {"column": "rate"}}, "byLabel", "set min, max or both"),
    (FilterSpec, FILTER | {"byLabel": {"column": "a", "min": 1, "max": 0}}, "byLabel", "min must not be above max"),
    (FilterSpec, FILTER | {"source": {}}, "source", "set exactly one of from and uri"),
    (FilterSpec, FILTER | {"source": URI | {"from": "FilterJob/a"}}, "source", "set exactly one of from and uri"),
    (
        FilterSpec,
        FILTER | {"source": {"uri": "pvc://claim/a/../b"}},
        "source",
        "uri must not have '.' or '..' as a path segment",
    ),
    (
        FilterSpec,
        FILTER | {"source": {"uri": "hf://datasets/gsm8k"}},
        "source",
        "uri must name a model as hf://ORG/NAME and a dataset as hf://datasets/ORG/NAME",
    ),
    (
        FineTuneSpec,
        FINE_TUNE | {"export": {"merge": False}},
        "",
        "export.merge: false needs an adapter; without one all weights are the artifact",
    ),
    *[
        (FineTuneSpec, FINE_TUNE | data, field, message)
        for data, field, message in (
            ({"method": "dpo"}, "", "method: dpo and dataset.format: preference go together"),
            ({"dpo": {}}, "", "dpo belongs to method: dpo"),
            ({"dataset": URI | {"validation": 0.1}}, "", FineTuneSpec.rules[2].message),
            (
                PAIRS
                | {
                    "dataset": URI | {"format": "preference", "validation": 0.1},
                    "evaluation": {"perplexity": True},
                },
                "",
                "dataset.validation belongs to method: sft; pairs have no perplexity",
            ),
            (
                PAIRS | {"training": {"packing": True}},
                "",
                "training.packing belongs to method: sft; pairs are not packed",
            ),
            (
                PAIRS | {"training": {"gradientCheckpointing": "selective"}},
                "",
                FineTuneSpec.rules[6].message,
            ),
            (
                {"adapter": {"quantization": "nf4"}, "distributed": {"nodes": 2, "strategy": "zero3"}},
                "",
                FineTuneSpec.rules[7].message,
            ),
            (
                {"adapter": {"quantization": "int8"}, "distributed": {"nodes": 2, "strategy": "fsdp2"}},
                "",
                FineTuneSpec.rules[7].message,
            ),
            (
                PAIRS | {"dpo": {"loss": "ipo", "labelSmoothing": 0.1}},
                "dpo",
                Dpo.rules[0].message,
            ),
            (PAIRS | {"dpo": {"labelSmoothing": 0.1}}, "dpo", Dpo.rules[0].message),
            (PAIRS | {"dpo": {"loss": "exo_pair"}}, "dpo", Dpo.rules[1].message),
            (
                {"dataset": URI | {"columns": {"chosen": "good"}}},
                "dataset",
                ExampleDataset.rules[0].message,
            ),
            (
                {"dataset": URI | {"format": "text", "template": "alpaca"}},
                "dataset",
                "template has no use with format: text, which is taken as it is",
            ),
            (
                {"adapter": {"lora": {}, "initial": URI}},
                "adapter",
                "set lora for a new adapter or initial to go on from one, not both; an adapter keeps its shape",
            ),
            (
                {"training": {"minLearningRateRatio": 0.1, "scheduler": "linear"}},
                "training",
                "minLearningRateRatio belongs to scheduler: cosine",
            ),
            (
                {"training": {"warmupRatio": 0.1, "warmupSteps": 1}},
                "training",
                "set warmupSteps or warmupRatio, not both",
            ),
            (
                {"distributed": {"strategy": "zero2"}},
                "distributed",
                Distributed.rules[1].message,
            ),
            (
                {"distributed": {"override": "{}"}},
                "distributed",
                "override belongs to strategy: zero1, zero2, zero3 or fsdp2; ddp has no configuration",
            ),
        )
    ],
    (
        RLSpec,
        RL | {"training": {"gradientCheckpointing": "selective"}},
        "",
        "training.gradientCheckpointing: selective belongs to a FineTuneJob; take full",
    ),
    (
        RLSpec,
        RL | {"rewards": [{"name": "exact-match", "answer": "regex"}]},
        "rewards[0]",
        "pattern goes with answer: regex, which needs it; with other answers leave it out",
    ),
    (
        RLSpec,
        RL | {"training": {"batchSize": 6}, "grpo": {"groupSize": 4}},
        "",
        "training.batchSize x training.gradientAccumulation must be a multiple of grpo.groupSize",
    ),
    (
        RLSpec,
        RL | {"rollout": {"maxModelLength": 512}},
        "rollout",
        "sampling.maxNewTokens must be below maxModelLength, which counts the prompt too",
    ),
    (
        FineTuneSpec,
        FINE_TUNE | {"evaluation": {"everySteps": 5}},
        "evaluation",
        "set generate, perplexity: true or both; leave evaluation out to evaluate nothing",
    ),
    (
        FineTuneSpec,
        FINE_TUNE | {"dataset": ASIDE, "evaluation": {"perplexity": True, "keepBest": "exactMatch"}},
        "evaluation",
        "keepBest: exactMatch needs generate, and keepBest: perplexity needs perplexity: true",
    ),
    (
        FineTuneSpec,
        FINE_TUNE | {"tracking": {}},
        "tracking",
        "set wandb, tensorboard: true or both; leave tracking out to track nowhere",
    ),
    (
        UploadSpec,
        UPLOAD | {"trainingData": {"source": URI, "repository": {"id": "acme/model"}}},
        "",
        "trainingData.repository.id must differ from repository.id",
    ),
]


@pytest.mark.parametrize(("kind", "data", "field", "message"), BROKEN)
def test_a_broken_rule_says_where_and_what(kind: type[Model], data: dict[str, Any], field: str, message: str) -> None:
    assert found(kind, data) == [(field, message)]


def test_every_rule_is_broken_above() -> None:
    tuning = (adapter, distributed, evaluation, examples, finetune, preference, rl, tracking, training)
    modules = (filter_module, inputs, upload, *tuning)
    models = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Model)
    }
    messages = {rule.message for model in models for rule in model.all_rules()}
    assert messages == {message for *_, message in BROKEN}


@pytest.mark.parametrize(
    ("kind", "data"), [(FilterSpec, FILTER), (FineTuneSpec, FINE_TUNE), (RLSpec, RL), (UploadSpec, UPLOAD)]
)
def test_the_smallest_objects_are_accepted(kind: type[Model], data: dict[str, Any]) -> None:
    spec = kind.parse(data)
    assert kind.parse(spec.dump()) == spec


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "not a regular expression (missing ), unterminated subpattern at position 0); correct it"),
        ("a+", "has 0 groups; put exactly one around the answer, and write others as (?:...)"),
        ("(a)(b)", "has 2 groups; put exactly one around the answer, and write others as (?:...)"),
        ("(a{99999999999999999999})", "not a regular expression (the repetition number is too large); correct it"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, said: str) -> None:
    data = RL | {"rewards": [{"name": "exact-match", "answer": "regex", "pattern": pattern}]}
    ((field, message),) = found(RLSpec, data)
    assert field == "rewards[0].pattern"
    assert message.startswith(said)


def test_two_broken_rules_of_one_object_are_told_together() -> None:
    data = FILTER | {"source": {"uri": "pvc://claim/../x", "from": "FilterJob/a"}}
    ((field, message),) = found(FilterSpec, data)
    assert field == "source"
    assert message == "set exactly one of from and uri; uri must not have '.' or '..' as a path segment"


def test_every_problem_is_told_at_once() -> None:
    data = {"source": URI | {"path": "x"}, "byLabel": {"min": "low", "column": ""}, "output": {"rowsPerShard": 0}}
    assert dict(found(FilterSpec, data)) == {
        "source.path": "unknown field",
        "byLabel.min": "input should be a valid number, found 'low'",
        "byLabel.column": "string should have at least 1 character, found ''",
        "output.rowsPerShard": "input should be greater than or equal to 1, found 0",
    }


def test_an_unknown_field_is_refused_at_any_depth() -> None:
    data = RL | {"rewards": [{"name": "exact-match", "wieght": 2}]}
    assert found(RLSpec, data) == [("rewards[0].wieght", "unknown field")]


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ({"quantization": "nf4"}, "quantization", "unknown field"),
        ({"training": {"quantization": "nf4"}}, "training.quantization", "unknown field"),
        ({"adapter": {"lora": {"quantization": "int8"}}}, "adapter.lora.quantization", "unknown field"),
        ({"training": {"precision": "int8"}}, "training.precision", "input should be 'fp32' or 'bf16', found 'int8'"),
        ({"adapter": {"quantization": "fp8"}}, "adapter.quantization", "input should be 'nf4' or 'int8', found 'fp8'"),
    ],
)
def test_quantization_belongs_to_an_adapter_and_has_two_kinds(data: dict[str, Any], field: str, message: str) -> None:
    assert found(FineTuneSpec, FINE_TUNE | data) == [(field, message)]


def test_a_required_field_is_named() -> None:
    assert found(UploadSpec, {"source": URI}) == [("repository", "required field is missing")]


def test_fields_have_one_spelling() -> None:
    data = {"source": URI, "by_label": {"column": "a", "max": 1}}
    assert found(FilterSpec, data) == [
        ("byLabel", "required field is missing"),
        ("by_label", "unknown field"),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_bounds_are_finite(value: float) -> None:
    ((field, message),) = found(FilterSpec, FILTER | {"byLabel": {"column": "a", "max": value}})
    assert field == "byLabel.max"
    assert "finite number" in message


@pytest.mark.parametrize(
    "uri", ["pvc://claim", "pvc://Claim/x", "s3://bucket/x", "/data", "pvc://claim//x", "file://host/x", "hf://a"]
)
def test_uris_have_one_of_the_known_forms(uri: str) -> None:
    ((field, _),) = found(FilterSpec, FILTER | {"source": {"uri": uri}})
    assert field == "source.uri"


@pytest.mark.parametrize("reference", ["FilterJob", "filterjob/a", "UploadJob/a", "FilterJob/A", "FilterJob/a/b"])
def test_references_name_a_kind_that_has_an_artifact(reference: str) -> None:
    ((field, _),) = found(FilterSpec, FILTER | {"source": {"from": reference}})
    assert field == "source.from"


@pytest.mark.parametrize("name", ["model", "acme/", "acme/a/b", "acme/.hidden", "-acme/a", "acme/a b"])
def test_repositories_are_owner_and_name(name: str) -> None:
    ((field, _),) = found(UploadSpec, UPLOAD | {"repository": {"id": name}})
    assert field == "repository.id"


def test_values_cannot_be_changed() -> None:
    spec = FilterSpec.parse(FILTER)
    with pytest.raises(ValidationError, match="frozen"):
        spec.parallelism = 2  # type: ignore[misc]
