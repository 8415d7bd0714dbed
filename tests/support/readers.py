"""What the operator and the supervisor of the training processes read of a specification."""

import importlib
from types import SimpleNamespace
from typing import Any
from unittest import mock

from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.rl import RLSpec
from posttrain_operator import labels
from posttrain_operator.api.resources import KINDS, Resource, Spec
from posttrain_operator.api.run import RunSpec
from posttrain_operator.cluster import Ref
from posttrain_operator.plan import filterjob, finetunejob, rljob, uploadjob
from posttrain_operator.plan.inputs import resolve
from posttrain_operator.settings import Settings
from support.recording import recorded


def read_by_the_operator(spec: Spec) -> set[str]:
    """The fields that decide the inputs and children; those that the stage's configuration only repeats are not."""
    seen: set[str] = set()
    settings = Settings()
    watched: Spec = recorded(spec, seen)
    kind = next(kind.name for kind in KINDS.values() if isinstance(spec, kind.spec))
    resource = Resource(Ref(labels.API_VERSION, kind, "team", "x"), "0123456789", 1, watched, RunSpec())
    inputs = resolve(resource, {}, settings)
    if isinstance(watched, RLSpec):
        rljob.servers(resource, watched, inputs, 1, settings)
        rljob.trainer(resource, watched, inputs, 1, settings, address=lambda service, pod: f"{pod}.{service}")
    elif isinstance(watched, FineTuneSpec):
        finetunejob.children(resource, watched, inputs, 1, settings)
    elif isinstance(watched, FilterSpec):
        filterjob.children(resource, watched, inputs, 1, settings)
    else:
        uploadjob.children(resource, watched, inputs, 1, settings)
    return seen


def read_by_the_supervisor(config: Any) -> set[str]:
    """The fields of a training that its supervisor reads before it starts the processes."""
    program = importlib.import_module(f"posttrain_{config.stage}.__main__")
    seen: set[str] = set()
    watched = config.model_copy(update={"spec": recorded(config.spec, seen)})
    with mock.patch.object(program, "run_ranks"):
        program.supervise(SimpleNamespace(config=watched))
    return seen
