"""Why pods do not start, and that nothing that anybody writes into a pod stops the operator."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from posttrain_operator import labels
from posttrain_operator.api.quantities import moment
from posttrain_operator.api.resources import parse
from posttrain_operator.api.status import Attempt
from posttrain_operator.observe import job, pytorchjob, statefulset
from posttrain_operator.observe.facts import observe_attempts
from posttrain_operator.observe.obstacles import Obstacle, observe_obstacle
from posttrain_operator.observe.pods import observe_pod
from posttrain_operator.observe.workload import creation_failure, true_conditions
from posttrain_operator.plan.starting import under_way
from support.scene import SPECS, Scene

Json = dict[str, Any]


def waiting(reason: str, message: str | None = None, *, init: bool = False) -> Json:
    container = {"name": "pytorch", "image": "acme/x", "state": {"waiting": {"reason": reason, "message": message}}}
    field = "initContainerStatuses" if init else "containerStatuses"
    return {"metadata": {"name": "p"}, "status": {"phase": "Pending", field: [container]}}


def unscheduled(reason: str = "Unschedulable", status: str = "False") -> Json:
    told = {"type": "PodScheduled", "status": status, "reason": reason, "message": "0/3 nodes are available"}
    return {"metadata": {"name": "p"}, "status": {"phase": "Pending", "conditions": [told]}}


def obstacle(pod: Json) -> Obstacle:
    found = observe_obstacle(pod)
    assert found is not None
    return found


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_named_with_its_pod(reason: str, *, init: bool) -> None:
    found = obstacle(waiting(reason, "not found", init=init))
    assert found.reason == "ImagePullFailed"
    assert found.message == "image acme/x of p cannot be pulled: not found; check run.image and run.imagePullSecrets"


def test_a_missing_secret_is_told() -> None:
    found = obstacle(waiting("CreateContainerConfigError", 'secret "hf-token" not found'))
    assert found.reason == "ContainerConfigError"
    assert 'secret "hf-token" not found' in found.message


@pytest.mark.parametrize("reason", ["RunContainerError", "CreateContainerError"])
def test_a_container_that_cannot_run_is_told(reason: str) -> None:
    assert obstacle(waiting(reason, "no such device")).reason == "ContainerCannotRun"


def test_the_scheduler_is_quoted() -> None:
    found = obstacle(unscheduled())
    assert (found.reason, found.message) == ("Unschedulable", "p cannot be scheduled: 0/3 nodes are available")


@pytest.mark.parametrize(
    "pod",
    [
        {},
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
        unscheduled("SchedulingGated"),
        unscheduled(status="True"),
    ],
)
def test_a_pod_on_its_way_has_no_obstacle(pod: Json) -> None:
    assert observe_obstacle(pod) is None


@pytest.mark.parametrize(
    ("child", "why"),
    [
        ({}, None),
        (
            {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}},
            "exceeded quota",
        ),
        ({"status": {"conditions": [{"type": "X", "reason": "FailedCreate", "status": "True"}]}}, "no reason given"),
        (
            {"status": {"conditions": [{"type": "ReplicaFailure", "status": "False", "message": "exceeded quota"}]}},
            None,
        ),
    ],
)
def test_a_controller_that_cannot_make_its_pods_says_why(child: Json, why: str | None) -> None:
    assert creation_failure(child) == why


class TestInWords:
    def scene(self, *told: Json) -> Scene:
        """A gang of two whose pods have these statuses."""
        scene = Scene()
        scene.settle()
        scene.start_pods()
        for ref, status in zip(scene.pods(), told, strict=False):
            scene.cluster.set_status(ref, **{"containerStatuses": [], **status["status"]})
        scene.settle()
        return scene

    def test_the_gravest_comes_first_whoever_has_it(self) -> None:
        assert self.scene(unscheduled(), waiting("ErrImagePull")).state == ("Starting", "ImagePullFailed")
        assert self.scene(waiting("ErrImagePull"), unscheduled()).state == ("Starting", "ImagePullFailed")

    def test_of_equals_the_first_by_name_is_told(self) -> None:
        assert self.scene(unscheduled(), unscheduled()).message.startswith("x-finetune-1-worker-0 ")

    def test_a_gang_with_one_pod_that_does_not_start_does_not_run(self) -> None:
        scene = self.scene({"status": {"phase": "Running"}}, unscheduled())
        assert scene.state == ("Starting", "Unschedulable")
        assert scene.status.attempts[0].running_time is None
        assert not scene.status.holds("Running")

    def test_it_runs_once_the_obstacle_is_gone(self) -> None:
        scene = self.scene(waiting("ErrImagePull"))
        for ref in scene.pods():
            scene.cluster.set_status(ref, phase="Running", containerStatuses=[{"state": {"running": {}}}])
        scene.settle()
        assert scene.state == ("Running", "Running")

    def test_a_server_that_does_not_start_is_told_too(self) -> None:
        scene = Scene("RLJob")
        scene.settle()
        scene.start_pods()
        for ref in scene.pods():
            scene.cluster.set_status(ref, **waiting("ImagePullBackOff")["status"])
        scene.control()
        scene.settle()
        assert scene.state == ("Starting", "ImagePullFailed")

    def test_children_without_pods_may_say_why(self) -> None:
        scene = Scene()
        scene.settle()
        (ref,) = scene.cluster.of_kind("PyTorchJob")
        told = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
        scene.cluster.set_status(ref, conditions=[told])
        scene.settle()
        assert scene.state == ("Starting", "PodCreationFailed")
        assert scene.message == "PyTorchJob/x-finetune-1 cannot create its pods: exceeded quota"


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def garbled(**fields: Any) -> st.SearchStrategy[Any]:
    """Mappings whose fields are as given, or garbage, or missing; or garbage altogether."""
    return st.fixed_dictionaries({}, optional={name: GARBAGE | known for name, known in fields.items()}) | GARBAGE


TIMES = st.sampled_from(
    ["2026-01-01T12:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "noon", "2026-01-01"]
)
ENDED = garbled(
    exitCode=st.integers(-9, 300), reason=st.just("OOMKilled"), message=st.just("{"), finishedAt=TIMES, startedAt=TIMES
)
CONTAINER = garbled(
    name=st.just("pytorch"),
    image=st.just("acme/x"),
    state=garbled(terminated=ENDED, running=garbled(startedAt=TIMES), waiting=garbled(reason=st.just("ErrImagePull"))),
    lastState=garbled(terminated=ENDED),
)
CONDITION = garbled(
    type=st.sampled_from(["DisruptionTarget", "PodScheduled", "Failed", "Running", "Succeeded"]),
    status=st.sampled_from(["True", "False"]),
    reason=st.just("Unschedulable"),
)
STATUS = garbled(
    phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]),
    reason=st.sampled_from(["Evicted", "NodeLost"]),
    message=st.just("The node was low on resource: memory"),
    conditions=st.lists(CONDITION, max_size=2),
    containerStatuses=st.lists(CONTAINER, max_size=2),
    initContainerStatuses=st.lists(CONTAINER, max_size=2),
    ready=st.integers(),
    readyReplicas=st.integers(),
)
SPEC = garbled(
    replicas=st.integers(),
    suspend=st.booleans(),
    runPolicy=garbled(suspend=st.booleans()),
    pytorchReplicaSpecs=garbled(Worker=garbled(replicas=st.integers())),
    containers=st.lists(garbled(name=st.just("pytorch"), resources=garbled(limits=garbled(**{"a/b": st.just("8")})))),
)
RESOURCE = parse(
    {
        "apiVersion": labels.API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {"name": "x", "namespace": "team", "uid": "me"},
        "spec": SPECS["FineTuneJob"],
    }
)
RUNAWAY = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@RUNAWAY
@given(status=STATUS, spec=SPEC)
def test_no_garbage_in_a_pod_stops_the_operator(status: Any, spec: Any) -> None:
    pod = observe_pod({"metadata": {"name": "p"}, "status": status, "spec": spec})
    assert isinstance(pod.failed, bool)
    assert pod.gpus >= 0
    assert isinstance(pod.phase, str)
    assert pod.exit_code is None or isinstance(pod.exit_code, int)


@RUNAWAY
@given(
    kind=st.sampled_from([("kubeflow.org/v1", "PyTorchJob"), ("batch/v1", "Job"), ("apps/v1", "StatefulSet")]),
    status=STATUS,
    spec=SPEC,
    pods=st.lists(STATUS, max_size=2),
)
def test_no_garbage_in_a_child_stops_the_operator(
    kind: tuple[str, str], status: Any, spec: Any, pods: list[Any]
) -> None:
    own = {labels.ATTEMPT: "1"}
    child = {
        "apiVersion": kind[0],
        "kind": kind[1],
        "metadata": {"name": "x", "uid": "c", "labels": own, "ownerReferences": [{"uid": "me", "controller": True}]},
        "status": status,
        "spec": spec,
    }
    metadata = {"labels": own, "ownerReferences": [{"uid": "c", "controller": True}]}
    told = [{"metadata": {"name": f"p{n}", **metadata}, "status": pod} for n, pod in enumerate(pods)]
    facts = observe_attempts("me", [child], told)[1]
    attempt = Attempt(number=1, start_time=datetime(2026, 1, 1, tzinfo=UTC))
    assert under_way(RESOURCE, facts, attempt, None).phase in ("Starting", "Running", "Pending")
    assert pytorchjob.size(child) is not None
    assert job.observe(child)
    assert statefulset.ready(child) in (True, False)
    assert isinstance(true_conditions(status), set)


@given(GARBAGE | TIMES)
def test_a_time_is_in_utc_or_none(value: Any) -> None:
    found = moment(value)
    assert found is None or (found.utcoffset() is not None and not found.utcoffset())
