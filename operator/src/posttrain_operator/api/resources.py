"""The four kinds: from the raw object to a frozen value, or to every problem with it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from posttrain_contract.base import Model, Problem, Rule, problems
from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.hub import SCHEME, HubAddress
from posttrain_contract.inputs import Input
from posttrain_contract.rl import RLSpec
from posttrain_contract.upload import UploadSpec
from pydantic import ValidationError

from posttrain_operator.api.quantities import moment
from posttrain_operator.api.run import RunSpec
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.errors import InvalidSpec
from posttrain_operator.labels import API_VERSION

M = TypeVar("M", bound=Model)
Spec = FilterSpec | FineTuneSpec | RLSpec | UploadSpec


@dataclass(frozen=True)
class Kind:
    """One of the four kinds."""

    name: str
    plural: str
    short: str
    stage: str
    """Its stage program; an RLJob has servers beside it."""
    spec: type[FilterSpec] | type[FineTuneSpec] | type[RLSpec] | type[UploadSpec]
    what: str
    """One sentence for ``kubectl explain``."""
    rules: tuple[Rule, ...] = ()
    """Rules between what to do and ``run``; ``check`` takes the two."""


ONE_GPU_A_PROCESS = Rule(
    cel="!has(self.run) || !has(self.run.resources) || !has(self.run.resources.gpus) || self.run.resources.gpus == 0"
    " || self.run.resources.gpus"
    " == (has(self.distributed) && has(self.distributed.processesPerNode) ? self.distributed.processesPerNode : 1)",
    check=lambda halves: halves[1].resources.gpus in (0, halves[0].distributed.processes_per_node),
    message="run.resources.gpus and distributed.processesPerNode must be equal, since a training process takes one "
    "GPU: set both to the same number, such as 8, or gpus to 0 to train on CPU",
)
"""Else GPUs would idle, or processes have none; and transformers spreads a single process over all that it sees."""


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "FilterJob",
            "filterjobs",
            "fj",
            "filter",
            FilterSpec,
            "Keeps the rows of a dataset that are worth training on.",
        ),
        Kind(
            "FineTuneJob",
            "finetunejobs",
            "ftj",
            "finetune",
            FineTuneSpec,
            "Trains a model on demonstrations.",
            rules=(ONE_GPU_A_PROCESS,),
        ),
        Kind("RLJob", "rljobs", "rlj", "rl", RLSpec, "Improves a model by rewards for what it generates."),
        Kind(
            "UploadJob",
            "uploadjobs",
            "ulj",
            "upload",
            UploadSpec,
            "Publishes a model or a dataset as a Hub repository.",
        ),
    )
}

NAME_RULE = Rule(
    cel="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    check=lambda name: re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) is not None,
    message="metadata.name must be a DNS label, since pods and services are named after it: it starts with a-z, ends "
    "with a-z or 0-9, has only a-z, 0-9 and - between, and at most 63 characters",
)
"""The rule for the name of every object; ``check`` takes the name alone."""


@dataclass(frozen=True)
class Resource:
    """An object of one of the four kinds, parsed."""

    ref: Ref
    uid: str
    generation: int
    spec: Spec
    run: RunSpec
    created: datetime | None = None
    """By the API server's clock."""

    @property
    def inputs(self) -> dict[str, Input]:
        """What the job reads, by the field's path below spec."""
        return self.spec.inputs()


def parse(raw: Json) -> Resource:
    """The resource in a raw object. Raises ``InvalidSpec`` with every problem."""
    found, spec, run = read_spec(raw)
    if found or spec is None or run is None:
        raise InvalidSpec(found)
    metadata = raw["metadata"]
    created = moment(metadata.get("creationTimestamp"))
    return Resource(Ref.of(raw), metadata["uid"], metadata.get("generation", 1), spec, run, created)


def read_spec(raw: Mapping[str, Any]) -> tuple[list[Problem], Spec | None, RunSpec | None]:
    """The two halves of ``spec``, and every problem in the order: the object's name, what to do, ``run``."""
    kind = KINDS[raw["kind"]]
    named = _name_problems(raw)
    body = raw.get("spec")
    if body is None:
        return [*named, Problem(("spec",), "required field is missing", "missing")], None, None
    if not isinstance(body, Mapping):
        return [*named, Problem(("spec",), f"must be a mapping, found {body!r:.80}", "model_type")], None, None
    what = {key: value for key, value in body.items() if key != "run"}
    spec_problems, spec = _read(kind.spec, what, ("spec",))
    run_problems, run = _read(RunSpec, body.get("run", {}), ("spec", "run"))
    addresses = _address_problems(kind, spec) if spec is not None else ()
    between = _rule_problems(kind, spec, run) if spec is not None and run is not None else ()
    return [*named, *spec_problems, *addresses, *run_problems, *between], spec, run


def _address_problems(kind: Kind, spec: Spec) -> Iterator[Problem]:
    """Inputs on the Hub that are not of the type that is read there."""
    for field, item in spec.inputs().items():
        if item.uri is None or not item.uri.startswith(SCHEME):
            continue
        path, needed = ("spec", *field.split("."), "uri"), spec.needs.get(field)
        if kind.spec is UploadSpec:
            yield Problem(path, "an UploadJob publishes what a job made; name it with from, or as pvc://CLAIM/PATH")
        elif needed is not None and (found := HubAddress.parse(item.uri).type) != needed:
            form = {"model": "hf://ORG/NAME", "dataset": "hf://datasets/ORG/NAME"}[needed]
            yield Problem(path, f"must be a {needed}, as in {form}, but names a {found}")


def _rule_problems(kind: Kind, spec: Spec, run: RunSpec) -> Iterator[Problem]:
    """What is wrong between the two halves."""
    return (Problem(("spec",), rule.message, "rule") for rule in kind.rules if not rule.check((spec, run)))


def _name_problems(raw: Mapping[str, Any]) -> list[Problem]:
    name = (raw.get("metadata") or {}).get("name")
    if not isinstance(name, str):
        return [Problem(("metadata", "name"), "required field is missing", "missing")]
    return [] if NAME_RULE.check(name) else [Problem(("metadata", "name"), NAME_RULE.message, "rule")]


def _read(model: type[M], data: Any, path: tuple[str, ...]) -> tuple[list[Problem], M | None]:
    try:
        return [], model.parse(data)
    except ValidationError as error:
        return problems(error, path), None


def is_ours(raw: Mapping[str, Any]) -> bool:
    """Whether an object is of one of the four kinds."""
    return raw.get("apiVersion") == API_VERSION and raw.get("kind") in KINDS


def upstream_refs(raw: Mapping[str, Any]) -> dict[str, Ref]:
    """The objects that a raw object reads from, by the field's path; empty where the spec does not parse."""
    _, spec, _ = read_spec(raw)
    if spec is None:
        return {}
    namespace = raw["metadata"].get("namespace", "default")
    return {
        field: upstream_ref(item.from_, namespace) for field, item in spec.inputs().items() if item.from_ is not None
    }


def upstream_ref(reference: str, namespace: str) -> Ref:
    """The object that a ``from`` names, such as FilterJob/hard-problems."""
    kind, name = reference.split("/", 1)
    return Ref(API_VERSION, kind, namespace, name)
