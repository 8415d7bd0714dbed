"""What the present attempt is doing, in words, from the creation of its children until they end."""

from posttrain_contract.rl import RLSpec

from posttrain_operator.api.resources import Resource
from posttrain_operator.api.status import Attempt
from posttrain_operator.labels import Reason
from posttrain_operator.observe.facts import AttemptFacts
from posttrain_operator.observe.workload import WorkloadState, creation_failure
from posttrain_operator.plan.types import Admission, State


def under_way(resource: Resource, facts: AttemptFacts | None, attempt: Attempt, said: Admission | None) -> State:
    """The state of an attempt that has not ended, or that begins when its children are created.

    ``said`` is what its queue says. Once all its pods ran it runs until it has ended, though some of them end before.
    """
    if said is not None and not said.holds:
        return said.state
    if facts is not None and facts.state is WorkloadState.FAILED:
        return State("Pending", Reason.STOPPING, "the attempt has failed; its pods are still ending")
    if attempt.running_time is not None:
        return State("Running", Reason.RUNNING, f"attempt {attempt.number} is at work")
    if facts is not None and (obstacle := _obstacle(facts)) is not None:
        return obstacle
    if isinstance(resource.spec, RLSpec) and (facts is None or (facts.main is None and not facts.servers_ready)):
        return State("Starting", Reason.STARTING, "rollout servers are starting")
    return State("Starting", Reason.STARTING, "pods are starting")


def _obstacle(facts: AttemptFacts) -> State | None:
    """What keeps pods from starting: the gravest that is known, the same one in whatever order pods are listed."""
    known = [(pod.obstacle.rank, pod.name, pod.obstacle) for pod in facts.pods if pod.alive and pod.obstacle]
    if known:
        _, _, obstacle = min(known, key=lambda told: told[:2])
        return State("Starting", obstacle.reason, obstacle.message)
    for child in facts.children:
        if (why := creation_failure(child)) is not None:
            message = f"{child['kind']}/{child['metadata']['name']} cannot create its pods: {why}"
            return State("Starting", Reason.POD_CREATION_FAILED, message)
    return None
