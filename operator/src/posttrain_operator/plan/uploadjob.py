"""UploadJob: a Job of one pod."""

from posttrain_contract.stage import UploadStage
from posttrain_contract.upload import UploadSpec

from posttrain_operator.api.resources import Resource
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Role
from posttrain_operator.plan.config import config_map, run_facts
from posttrain_operator.plan.inputs import Inputs
from posttrain_operator.plan.job import indexed_job
from posttrain_operator.plan.metadata import Child
from posttrain_operator.plan.pods import pod_template
from posttrain_operator.settings import Settings


def children(resource: Resource, spec: UploadSpec, inputs: Inputs, attempt: int, settings: Settings) -> list[Json]:
    """The children of one attempt."""
    child = Child(resource, attempt, Role.WORKER)
    stage = UploadStage(
        run=run_facts(resource, inputs, attempt, settings), spec=spec, hub_endpoint=settings.hub_endpoint
    )
    config = config_map(child, stage)
    template = pod_template(child, config_map_name=config["metadata"]["name"], inputs=inputs, settings=settings)
    return [config, indexed_job(child, template, completions=1)]
