"""RLJob: rollout servers first (StatefulSet, Service), then the trainer (PyTorchJob) that keeps their weights new."""

from collections.abc import Callable

from posttrain_contract.rl import RLSpec
from posttrain_contract.stage import RLStage, ServeStage

from posttrain_operator.api.resources import Resource
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Role
from posttrain_operator.plan.config import config_map, run_facts
from posttrain_operator.plan.inputs import Inputs
from posttrain_operator.plan.metadata import Child
from posttrain_operator.plan.pods import pod_template
from posttrain_operator.plan.pytorchjob import CONTAINER, pytorchjob
from posttrain_operator.plan.servers import headless_service, pod_names, stateful_set
from posttrain_operator.settings import Settings

ServerAddress = Callable[[str, str], str]
"""(service, pod) -> host, see ``Cluster.server_address``."""


def servers(resource: Resource, spec: RLSpec, inputs: Inputs, attempt: int, settings: Settings) -> list[Json]:
    """The rollout servers of one attempt."""
    child = Child(resource, attempt, Role.SERVERS)
    rollout = spec.rollout
    stage = ServeStage(
        run=run_facts(resource, inputs, attempt, settings),
        tensor_parallel=rollout.tensor_parallel,
        max_model_length=rollout.max_model_length,
        max_sequences=rollout.max_sequences,
        cache_memory_mi=rollout.cache_memory_mi,
        precision=spec.training.precision,
        seed=spec.training.seed,
    )
    config = config_map(child, stage)
    template = pod_template(
        child,
        config_map_name=config["metadata"]["name"],
        inputs=inputs,
        settings=settings,
        restart_policy="Always",  # the only policy that a StatefulSet allows
    )
    return [config, headless_service(child), stateful_set(child, template, replicas=rollout.replicas)]


def trainer(
    resource: Resource, spec: RLSpec, inputs: Inputs, attempt: int, settings: Settings, *, address: ServerAddress
) -> list[Json]:
    """The trainer of one attempt."""
    child = Child(resource, attempt, Role.TRAINER)
    server = Child(resource, attempt, Role.SERVERS)
    hosts = tuple(address(server.name, pod) for pod in pod_names(server, spec.rollout.replicas))
    config = config_map(child, RLStage(run=run_facts(resource, inputs, attempt, settings), spec=spec, servers=hosts))
    template = pod_template(
        child,
        config_map_name=config["metadata"]["name"],
        inputs=inputs,
        settings=settings,
        container_name=CONTAINER,
    )
    return [config, pytorchjob(child, template, nodes=1, processes_per_node=1)]
