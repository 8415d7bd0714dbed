"""FineTuneJob: one PyTorchJob, one pod a node."""

from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.stage import FineTuneStage

from posttrain_operator.api.resources import Resource
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Role
from posttrain_operator.plan.config import config_map, run_facts
from posttrain_operator.plan.inputs import Inputs
from posttrain_operator.plan.metadata import Child
from posttrain_operator.plan.pods import pod_template
from posttrain_operator.plan.pytorchjob import CONTAINER, pytorchjob
from posttrain_operator.settings import Settings


def children(resource: Resource, spec: FineTuneSpec, inputs: Inputs, attempt: int, settings: Settings) -> list[Json]:
    """The children of one attempt."""
    child = Child(resource, attempt, Role.TRAINER)
    config = config_map(child, FineTuneStage(run=run_facts(resource, inputs, attempt, settings), spec=spec))
    template = pod_template(
        child,
        config_map_name=config["metadata"]["name"],
        inputs=inputs,
        settings=settings,
        container_name=CONTAINER,
    )
    gang = spec.distributed
    job = pytorchjob(child, template, nodes=gang.nodes, processes_per_node=gang.processes_per_node)
    return [config, job]
