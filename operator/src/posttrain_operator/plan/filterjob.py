"""FilterJob: one Indexed Job whose pods share the source."""

from posttrain_contract.filter import FilterSpec
from posttrain_contract.stage import FilterStage

from posttrain_operator.api.resources import Resource
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Role
from posttrain_operator.plan.config import config_map, run_facts
from posttrain_operator.plan.inputs import Inputs
from posttrain_operator.plan.job import indexed_job
from posttrain_operator.plan.metadata import Child
from posttrain_operator.plan.pods import pod_template
from posttrain_operator.settings import Settings


def children(resource: Resource, spec: FilterSpec, inputs: Inputs, attempt: int, settings: Settings) -> list[Json]:
    """The children of one attempt."""
    child = Child(resource, attempt, Role.WORKER)
    config = config_map(child, FilterStage(run=run_facts(resource, inputs, attempt, settings), spec=spec))
    template = pod_template(child, config_map_name=config["metadata"]["name"], inputs=inputs, settings=settings)
    return [config, indexed_job(child, template, completions=spec.parallelism)]
