"""The stage configuration and the ConfigMap that carries it."""

from posttrain_contract import layout
from posttrain_contract.hub import SCHEME
from posttrain_contract.stage import (
    FilterStage,
    FineTuneStage,
    RLStage,
    RunFacts,
    ServeStage,
    UploadStage,
    canonical,
)

from posttrain_operator import names
from posttrain_operator.api.resources import Resource
from posttrain_operator.cluster import Json
from posttrain_operator.plan.inputs import Inputs
from posttrain_operator.plan.metadata import Child
from posttrain_operator.settings import Settings


def run_facts(resource: Resource, inputs: Inputs, attempt: int, settings: Settings) -> RunFacts:
    """What the stage is told about this attempt."""
    ref = resource.ref
    folder = layout.run_folder(namespace=ref.namespace, kind=ref.kind, name=ref.name, uid=resource.uid)
    return RunFacts(
        kind=ref.kind,
        namespace=ref.namespace,
        name=ref.name,
        attempt=attempt,
        folder=f"{layout.STORE_MOUNT}/{folder}",
        uri=f"pvc://{resource.run.storage.claim}/{folder}",
        inputs=inputs.resolved,
        gpus=resource.run.resources.gpus,
        hub=settings.hub_endpoint if any(i.uri.startswith(SCHEME) for i in inputs.resolved.values()) else None,
    )


def config_map(child: Child, config: FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage) -> Json:
    """An immutable ConfigMap named by its content: what ran can be read back, and never changes under a pod."""
    content = canonical(config.dump())
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child.metadata(names.config_map(child.resource.ref.name, child.stage, content)),
        "immutable": True,
        "data": {"stage.json": content},
    }
