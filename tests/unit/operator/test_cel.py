"""Every rule is said twice, in CEL for the API server and in Python for the parse: the halves agree."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import celpy
import posttrain_contract
import posttrain_operator.api
import pytest
from celpy import celtypes
from hypothesis import given, settings
from posttrain_contract.adapter import Adapter
from posttrain_contract.base import Model, Rule, problems
from posttrain_contract.distributed import Distributed
from posttrain_contract.evaluation import GenerationEvaluation, TuningEvaluation
from posttrain_contract.examples import ExampleDataset
from posttrain_contract.filter import ByLabel
from posttrain_contract.finetune import FineTuneSpec, FineTuneTraining
from posttrain_contract.inputs import PATTERN_WITH_REGEX, Input, OrganizationAndName, TaskDataset
from posttrain_contract.preference import Dpo
from posttrain_contract.rl import Reward, RLSpec, Rollout
from posttrain_contract.tracking import Tracking
from posttrain_contract.training import Training
from posttrain_contract.upload import UploadSpec
from posttrain_operator.api.crd import crd
from posttrain_operator.api.resources import KINDS, NAME_RULE, ONE_GPU_A_PROCESS, Kind, read_spec
from posttrain_operator.api.run import EnvVar, RunSpec, Toleration
from posttrain_operator.api.schema import structural
from posttrain_operator.api.status import InputStatus
from pydantic import ValidationError
from support.raw_objects import raw_objects

Json = dict[str, Any]


def all_models() -> Iterator[type[Model]]:
    """Every class of the contract and of the API."""
    for package in (posttrain_contract, posttrain_operator.api):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    yield from _below(Model)


def _below(base: type[Model]) -> Iterator[type[Model]]:
    for model in base.__subclasses__():
        if model.__module__.startswith(("posttrain_contract.", "posttrain_operator.api.")):
            yield model
        yield from _below(model)


def evaluate(expression: str, **variables: celtypes.Value) -> bool:
    """The value of a CEL rule."""
    environment = celpy.Environment()
    return bool(environment.program(environment.compile(expression)).evaluate(variables))


def typed(value: Any, schema: Json) -> celtypes.Value:
    """A raw value with the types that the API server gives it by its schema: 1 is a double where a number is asked."""
    match schema["type"]:
        case "object":
            fields = schema.get("properties", {})
            inner = {name: fields[name] if fields else schema["additionalProperties"] for name in value}
            return celtypes.MapType({celtypes.StringType(name): typed(value[name], inner[name]) for name in value})
        case "array":
            return celtypes.ListType([typed(inner, schema["items"]) for inner in value])
        case "integer":
            return celtypes.IntType(value)
        case "number":
            return celtypes.DoubleType(value)
        case _:
            result: celtypes.Value = celpy.json_to_cel(value)
            return result


def broken_rules(model: type[Model], raw: Json) -> set[str] | None:
    """The messages of the class's own rules that the parse reports; None when something else is wrong."""
    try:
        model.parse(raw)
    except ValidationError as error:
        found = problems(error)
        if any(problem.path or problem.kind != "rule" for problem in found):
            return None
        (problem,) = found
        return {rule.message for rule in model.all_rules() if rule.message in problem.message}
    return set()


def in_cel(model: type[Model], rule: Rule, raw: Json) -> bool:
    return evaluate(rule.cel, self=typed(raw, structural(model)))


# ---- a table: for each rule of each class, objects that obey it and objects that break it ----

PVC = {"uri": "pvc://data/train"}
FINETUNE: Json = {"model": PVC, "dataset": PVC}
DPO: Json = {"method": "dpo", "model": PVC, "dataset": {**PVC, "format": "preference"}}
TWO = {"processesPerNode": 2}
ASIDE = {**PVC, "validation": 0.1}
SELECTIVE = {"gradientCheckpointing": "selective"}
RL: Json = {"model": PVC, "dataset": PVC, "rewards": [{"name": "exact-match"}]}
UPLOAD: Json = {"source": PVC, "repository": {"id": "acme/model"}}

GENERATE: Json = {"dataset": PVC}
BY_PATTERN: Json = {"answer": "regex", "pattern": "(a+)$"}
EXACTLY_ONE = "set exactly one of from and uri"
NO_DOTS = "uri must not have '.' or '..' as a path segment"
INPUT_TABLE: dict[str, tuple[list[Json], list[Json]]] = {
    OrganizationAndName.message: (
        [
            {"uri": "hf://acme/datasets"},
            {"uri": "hf://datasets/acme/rows"},
            {"uri": "hf://datasets/acme/rows@v1/a/*.csv"},
        ],
        [{"uri": "hf://datasets/gsm8k"}, {"uri": "hf://models/gpt2"}, {"uri": "hf://spaces/x@main"}],
    ),
    EXACTLY_ONE: ([{"from": "FilterJob/x"}, PVC], [{}, {"from": "FilterJob/x", **PVC}]),
    NO_DOTS: (
        [{"from": "RLJob/x"}, {"uri": "pvc://data/a.b/..c/d.."}, {"uri": "file:///a/.../b"}],
        [{"uri": "pvc://data/a/../b"}, {"uri": "pvc://data/."}, {"uri": "file:///.."}, {"uri": "file:///a/./b"}],
    ),
}

TRAINING_TABLE: dict[str, tuple[list[Json], list[Json]]] = {
    "minLearningRateRatio belongs to scheduler: cosine": (
        [{}, {"minLearningRateRatio": 0.1}, {"minLearningRateRatio": 0, "scheduler": "linear"}],
        [{"minLearningRateRatio": 0.1, "scheduler": "linear"}],
    ),
    "set warmupSteps or warmupRatio, not both": (
        [{}, {"warmupSteps": 3}, {"warmupRatio": 0.03}, {"warmupRatio": 0.03, "warmupSteps": 0}],
        [{"warmupRatio": 0.03, "warmupSteps": 3}],
    ),
}

TABLE: dict[type[Model], dict[str, tuple[list[Json], list[Json]]]] = {
    Input: INPUT_TABLE,
    ExampleDataset: {
        **INPUT_TABLE,
        ExampleDataset.rules[0].message: (
            [
                PVC,
                {**PVC, "columns": {}},
                {**PVC, "columns": {"prompt": "question", "completion": "answer", "system": "s"}},
                {**PVC, "format": "sharegpt", "columns": {"messages": "turns"}},
                {**PVC, "format": "preference", "columns": {"prompt": "question", "chosen": "good", "rejected": "bad"}},
            ],
            [
                {**PVC, "columns": {"chosen": "good"}},
                {**PVC, "format": "prompt-completion", "columns": {"rejected": "bad"}},
                {**PVC, "format": "preference", "columns": {"completion": "answer"}},
                {**PVC, "format": "text", "columns": {"system": "s"}},
                {**PVC, "format": "messages", "columns": {"prompt": "p"}},
            ],
        ),
        ExampleDataset.rules[1].message: (
            [
                PVC,
                {**PVC, "format": "text"},
                {**PVC, "template": "chatml"},
                {**PVC, "format": "text", "template": "model"},
            ],
            [{**PVC, "format": "text", "template": "chatml"}],
        ),
    },
    Training: TRAINING_TABLE,
    FineTuneTraining: TRAINING_TABLE,
    Adapter: {
        Adapter.rules[0].message: (
            [{}, {"lora": {}}, {"initial": PVC}, {"initial": PVC, "quantization": "nf4"}],
            [{"lora": {}, "initial": PVC}],
        ),
    },
    Dpo: {
        Dpo.rules[0].message: (
            [
                {},
                {"labelSmoothing": 0.1, "loss": "robust"},
                {"labelSmoothing": 0.1, "loss": "exo_pair"},
                {"labelSmoothing": 0, "loss": "ipo"},
            ],
            [{"labelSmoothing": 0.1}, {"labelSmoothing": 0.1, "loss": "ipo"}],
        ),
        Dpo.rules[1].message: (
            [{}, {"loss": "sigmoid"}, {"loss": "exo_pair", "labelSmoothing": 0.001}],
            [{"loss": "exo_pair"}, {"loss": "exo_pair", "labelSmoothing": 0}],
        ),
    },
    Distributed: {
        Distributed.rules[0].message: (
            [{}, {"strategy": "ddp"}, {**TWO, "strategy": "zero1", "override": "{}"}],
            [{"override": "{}"}, {"strategy": "ddp", "override": "{}"}],
        ),
        Distributed.rules[1].message: (
            [{}, {"strategy": "ddp"}, {**TWO, "strategy": "zero3"}, {"nodes": 2, "strategy": "fsdp2"}],
            [{"strategy": "zero1"}, {"nodes": 1, "strategy": "fsdp2"}],
        ),
    },
    TaskDataset: INPUT_TABLE,
    EnvVar: {
        "run.env is no place for secrets, which everybody can read there; put them into run.secrets": (
            [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "TOKENIZERS_PARALLELISM", "value": "false"}],
            [{"name": name, "value": "x"} for name in ("HF_TOKEN", "WANDB_API_KEY", "password", "AWS_ACCESS_KEY")],
        ),
    },
    InputStatus: {
        NO_DOTS: ([{"uri": "pvc://data/a.b/..c/d.."}], [{"uri": "pvc://data/a/../b"}, {"uri": "file:///.."}])
    },
    ByLabel: {
        "set min, max or both": (
            [{"column": "p", "min": 0}, {"column": "p", "max": 0.5}, {"column": "p", "min": 0, "max": 0.5}],
            [{"column": "p"}, {"column": "p", "missing": "keep"}],
        ),
        "min must not be above max": (
            [{"column": "p", "min": 1, "max": 1.0}, {"column": "p", "min": 9}, {"column": "p", "min": -1, "max": 1e-9}],
            [{"column": "p", "min": 1, "max": 0.5}, {"column": "p", "min": 1e-9, "max": 0}],
        ),
    },
    FineTuneSpec: {
        "export.merge: false needs an adapter; without one all weights are the artifact": (
            [
                FINETUNE,
                {**FINETUNE, "export": {}},
                {**FINETUNE, "export": {"merge": True}},
                {**FINETUNE, "adapter": {}, "export": {"merge": False}},
            ],
            [{**FINETUNE, "export": {"merge": False}}],
        ),
        "method: dpo and dataset.format: preference go together": (
            [FINETUNE, {**FINETUNE, "method": "sft"}, DPO],
            [{**DPO, "method": "sft"}, {**FINETUNE, "method": "dpo"}],
        ),
        FineTuneSpec.rules[2].message: (
            [
                FINETUNE,
                {**FINETUNE, "evaluation": {"generate": GENERATE}},
                {**FINETUNE, "evaluation": {"generate": GENERATE, "perplexity": False}},
                {**FINETUNE, "dataset": ASIDE, "evaluation": {"perplexity": True}},
            ],
            [
                {**FINETUNE, "dataset": ASIDE},
                {**FINETUNE, "evaluation": {"perplexity": True}},
                {**FINETUNE, "dataset": ASIDE, "evaluation": {"generate": GENERATE}},
            ],
        ),
        FineTuneSpec.rules[3].message: (
            [{**FINETUNE, "method": "sft", "dataset": ASIDE, "evaluation": {"perplexity": True}}, DPO],
            [{**DPO, "dataset": {**ASIDE, "format": "preference"}, "evaluation": {"perplexity": True}}],
        ),
        "dpo belongs to method: dpo": (
            [FINETUNE, DPO, {**DPO, "dpo": {}}],
            [{**FINETUNE, "dpo": {}}, {**FINETUNE, "method": "sft", "dpo": {"beta": 0.5}}],
        ),
        "training.packing belongs to method: sft; pairs are not packed": (
            [{**FINETUNE, "training": {"packing": True}}, {**DPO, "training": {"packing": False}}],
            [{**DPO, "training": {"packing": True}}],
        ),
        FineTuneSpec.rules[6].message: (
            [
                {**FINETUNE, "training": SELECTIVE},
                {**FINETUNE, "training": SELECTIVE, "adapter": {}, "distributed": {**TWO, "strategy": "zero2"}},
                {**FINETUNE, "training": SELECTIVE, "distributed": {**TWO, "strategy": "zero3"}},
                {**DPO, "training": {"gradientCheckpointing": "full"}},
            ],
            [
                {**DPO, "training": SELECTIVE},
                {**FINETUNE, "training": SELECTIVE, "adapter": {}, "distributed": {**TWO, "strategy": "zero3"}},
            ],
        ),
        FineTuneSpec.rules[7].message: (
            [
                {**FINETUNE, "adapter": {"quantization": "nf4"}},
                {**FINETUNE, "adapter": {"quantization": "nf4"}, "distributed": {**TWO, "strategy": "zero2"}},
                {**FINETUNE, "adapter": {}, "distributed": {**TWO, "strategy": "fsdp2"}},
            ],
            [
                {**FINETUNE, "adapter": {"quantization": "int8"}, "distributed": {**TWO, "strategy": "zero3"}},
                {**FINETUNE, "adapter": {"quantization": "nf4"}, "distributed": {**TWO, "strategy": "fsdp2"}},
            ],
        ),
    },
    Rollout: {
        "sampling.maxNewTokens must be below maxModelLength, which counts the prompt too": (
            [{}, {"sampling": {}}, {"maxModelLength": 513}, {"sampling": {"maxNewTokens": 2047}}],
            [
                {"maxModelLength": 512},
                {"sampling": {"maxNewTokens": 2048}},
                {"maxModelLength": 16, "sampling": {"temperature": 1, "maxNewTokens": 16}},
            ],
        ),
    },
    GenerationEvaluation: {
        PATTERN_WITH_REGEX.message: (
            [{"dataset": PVC}, {"dataset": PVC, "answer": "boxed"}, {"dataset": PVC, **BY_PATTERN}],
            [{"dataset": PVC, "answer": "regex"}, {"dataset": PVC, "pattern": "(a)"}],
        ),
    },
    Reward: {
        PATTERN_WITH_REGEX.message: (
            [{"name": "exact-match"}, {"name": "exact-match", **BY_PATTERN}],
            [{"name": "exact-match", "answer": "choice", "pattern": "(a)"}, {"name": "exact-match", "answer": "regex"}],
        ),
    },
    RLSpec: {
        "training.batchSize x training.gradientAccumulation must be a multiple of grpo.groupSize": (
            [
                RL,
                {**RL, "training": {}, "grpo": {}},
                {**RL, "training": {"batchSize": 3, "gradientAccumulation": 4}, "grpo": {"groupSize": 6}},
                {**RL, "training": {"gradientAccumulation": 3}, "grpo": {"groupSize": 12}},
            ],
            [
                {**RL, "training": {"batchSize": 4}},
                {**RL, "grpo": {"groupSize": 16}},
                {**RL, "training": {"batchSize": 3, "gradientAccumulation": 3}, "grpo": {"groupSize": 6}},
            ],
        ),
        RLSpec.rules[1].message: (
            [{**RL, "training": {"gradientCheckpointing": "full"}}],
            [{**RL, "training": SELECTIVE}],
        ),
    },
    TuningEvaluation: {
        TuningEvaluation.rules[0].message: (
            [{"generate": GENERATE}, {"perplexity": True}, {"generate": GENERATE, "perplexity": False}],
            [{}, {"everySteps": 3}, {"perplexity": False}],
        ),
        TuningEvaluation.rules[1].message: (
            [
                {"generate": GENERATE},
                {"generate": GENERATE, "keepBest": "exactMatch"},
                {"perplexity": True, "keepBest": "perplexity"},
            ],
            [
                {"perplexity": True, "keepBest": "exactMatch"},
                {"generate": GENERATE, "keepBest": "perplexity"},
                {"generate": GENERATE, "perplexity": False, "keepBest": "perplexity"},
            ],
        ),
    },
    Tracking: {
        Tracking.rules[0].message: (
            [{"tensorboard": True}, {"wandb": {"project": "p"}}, {"wandb": {"project": "p"}, "tensorboard": False}],
            [{}, {"tensorboard": False}],
        ),
    },
    UploadSpec: {
        "trainingData.repository.id must differ from repository.id": (
            [UPLOAD, {**UPLOAD, "trainingData": {"source": PVC, "repository": {"id": "acme/data"}}}],
            [{**UPLOAD, "trainingData": {"source": PVC, "repository": {"id": "acme/model", "branch": "data"}}}],
        ),
    },
    RunSpec: {
        RunSpec.rules[0].message: (
            [{}, {"podLabels": {}}, {"podLabels": {"team": "a", "acme.dev/team": "a", "my-posttrain.dev/x": "b"}}],
            [
                {"podLabels": {"posttrain.dev/attempt": "7"}},
                {"podLabels": {"app.kubernetes.io/component": "servers"}},
                {"podLabels": {"team": "a", "kueue.x-k8s.io/queue-name": "other"}},
                {"podLabels": {"training.kubeflow.org/job-name": "other"}},
            ],
        ),
        RunSpec.rules[1].message: (
            [{}, {"podAnnotations": {"kueue.x-k8s.io/podset-required-topology": "rack"}}],
            [{"podAnnotations": {"a": "b", "posttrain.dev/x": "y"}}],
        ),
        RunSpec.rules[2].message: (
            [
                {},
                *(
                    {"image": f"{name}{version}"}
                    for name in ("stage", "acme/stage", "registry.example:5000/stage")
                    for version in (":1", ":latest-2", f"@sha256:{'0' * 64}", f":latest@sha256:{'0' * 64}")
                ),
            ],
            [
                {"image": name}
                for name in ("stage", "stage:latest", "acme/stage:latest", "registry.example:5000/stage", "a/b/stage")
            ],
        ),
    },
    Toleration: {
        "without key, set operator: Exists, which tolerates every taint": (
            [{"key": "a"}, {"operator": "Exists"}, {"key": "a", "operator": "Equal", "value": "b"}],
            [{}, {"operator": "Equal"}, {"value": "b"}],
        ),
        "with operator Exists, leave value out": (
            [{"key": "a", "operator": "Exists"}, {"key": "a", "value": "b"}, {"key": "a"}],
            [{"key": "a", "operator": "Exists", "value": "b"}],
        ),
    },
}

MODELS_WITH_RULES = [model for model in all_models() if list(model.all_rules())]
ROWS = [
    pytest.param(model, rule, id=f"{model.__name__}-{rule.message[:30]}")
    for model in MODELS_WITH_RULES
    for rule in model.all_rules()
]


def test_every_class_with_rules_is_in_the_table() -> None:
    assert set(TABLE) == set(MODELS_WITH_RULES)


@pytest.mark.parametrize(("model", "rule"), ROWS)
def test_both_halves_accept_and_refuse_the_same_objects(model: type[Model], rule: Rule) -> None:
    accepted, refused = TABLE[model][rule.message]
    assert accepted
    assert refused
    for raw in accepted:
        assert (in_cel(model, rule, raw), broken_rules(model, raw)) == (True, set()), raw
    for raw in refused:
        assert not in_cel(model, rule, raw), raw
        assert rule.message in (broken_rules(model, raw) or ()), raw


# ---- and objects that nobody thought of ----


@pytest.mark.parametrize("model", MODELS_WITH_RULES)
def test_both_halves_agree_on_any_object(model: type[Model]) -> None:
    judged = 0

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(raw_objects(structural(model)))
    def agree(raw: Json) -> None:
        nonlocal judged
        broken = broken_rules(model, raw)
        if broken is None:
            return
        judged += 1
        for rule in model.all_rules():
            assert in_cel(model, rule, raw) == (rule.message not in broken), (rule.message, raw)

    agree()
    assert judged >= 10


# ---- between what to do and run, the name of an object, and what cannot be changed ----


def on_gpus(gpus: int, **distributed: Any) -> Json:
    return {**FINETUNE, "run": {"resources": {"gpus": gpus}}, **({"distributed": distributed} if distributed else {})}


ON_GPUS_TABLE: dict[bool, list[Json]] = {
    True: [
        FINETUNE,
        {**FINETUNE, "run": {}},
        {**FINETUNE, "run": {"resources": {"cpu": "8"}}},
        on_gpus(0, processesPerNode=2),
        on_gpus(1),
        on_gpus(1, nodes=4),
        on_gpus(8, processesPerNode=8),
    ],
    False: [on_gpus(8), on_gpus(8, nodes=8), on_gpus(8, processesPerNode=4), on_gpus(1, processesPerNode=8)],
}


@pytest.mark.parametrize(("right", "raw"), [(right, raw) for right, raws in ON_GPUS_TABLE.items() for raw in raws])
def test_a_pod_has_a_gpu_for_each_training_process(right: bool, raw: Json) -> None:
    """A process with several GPUs would spread over them by itself, and one without a GPU ends in CUDA's own words."""
    schema = crd(KINDS["FineTuneJob"])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    said = [rule["message"] for rule in schema["x-kubernetes-validations"] if rule["rule"] == ONE_GPU_A_PROCESS.cel]
    found, _, _ = read_spec({"kind": "FineTuneJob", "metadata": {"name": "x"}, "spec": raw})
    wrong = [] if right else [ONE_GPU_A_PROCESS.message]
    assert said == [ONE_GPU_A_PROCESS.message]
    assert [problem.message for problem in found] == wrong
    assert evaluate(ONE_GPU_A_PROCESS.cel, self=typed(raw, schema)) == right


def test_the_gpus_of_an_rljob_are_those_of_its_servers_too() -> None:
    run = {"resources": {"gpus": 8}}
    found, _, _ = read_spec({"kind": "RLJob", "metadata": {"name": "x"}, "spec": {**RL, "run": run}})
    assert found == []


@pytest.mark.parametrize("name", ["a", "sft", "a-1", "a" * 63, "a--b"])
def test_a_name_that_both_halves_accept(name: str) -> None:
    assert (name_in_cel(name), NAME_RULE.check(name)) == (True, True)


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "a.b", "A", "a_b", "a" * 64, "a\n", "é"])
def test_a_name_that_both_halves_refuse(name: str) -> None:
    assert (name_in_cel(name), NAME_RULE.check(name)) == (False, False)


def name_in_cel(name: str) -> bool:
    return evaluate(NAME_RULE.cel, self=celpy.json_to_cel({"metadata": {"name": name}}))


BEFORE: dict[str, Json] = {
    "FilterJob": {"source": PVC, "byLabel": {"column": "p", "max": 1}, "columns": {"a": "b"}, "parallelism": 2},
    "FineTuneJob": {**FINETUNE, "adapter": {"lora": {"rank": 4}}, "training": {"epochs": 2}},
    "RLJob": {**RL, "rollout": {"sampling": {"temperature": 1}}},
    "UploadJob": {**UPLOAD, "card": {"language": ["ja"]}},
}
CHANGES: list[tuple[str, str, Any]] = [
    ("FilterJob", "source", {"uri": "pvc://data/other"}),
    ("FilterJob", "byLabel", {"column": "p", "max": 0.5}),
    ("FilterJob", "columns", {"a": "c"}),
    ("FilterJob", "columns", None),
    ("FilterJob", "output", {"rowsPerShard": 5}),
    ("FineTuneJob", "adapter", {}),
    ("FineTuneJob", "training", {"epochs": 3}),
    ("FineTuneJob", "evaluation", {"generate": {"dataset": PVC}}),
    ("RLJob", "rewards", [{"name": "exact-match", "weight": 2}]),
    ("RLJob", "rollout", {"sampling": {"temperature": 2}}),
    ("UploadJob", "repository", {"id": "acme/model", "private": False}),
    ("UploadJob", "card", {"language": ["en"]}),
    ("UploadJob", "card", None),
]


def refused_change(kind: Kind, *, before: Json, after: Json) -> list[str]:
    """The messages of the transition rules that refuse an update of a spec."""
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rules = [rule for rule in schema["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    old, new = typed(before, schema), typed(after, schema)
    return [rule["message"] for rule in rules if not evaluate(rule["rule"], self=new, oldSelf=old)]


@pytest.mark.parametrize(("kind", "field", "value"), CHANGES)
def test_what_to_do_cannot_be_changed_added_or_removed(kind: str, field: str, value: Any) -> None:
    before = BEFORE[kind]
    after = {name: inner for name, inner in {**before, field: value}.items() if inner is not None}
    message = f"spec.{field} cannot be changed after creation; create a new object"
    assert refused_change(KINDS[kind], before=before, after=after) == [message]


@pytest.mark.parametrize("kind", KINDS)
def test_run_can_be_changed(kind: str) -> None:
    before = {**BEFORE[kind], "run": {"suspend": True}}
    assert refused_change(KINDS[kind], before=before, after=BEFORE[kind]) == []
    assert refused_change(KINDS[kind], before=before, after={**before, "run": {"retries": 5}}) == []
