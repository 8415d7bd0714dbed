"""Without a queue: a gang begins when all of it has room in the ResourceQuotas of its namespace, and not before."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from posttrain_operator import labels
from posttrain_operator.api.quantities import to_amount, to_quantity
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.plan.needs import needs
from posttrain_operator.reconcile import reconcile
from support.kueue_words import stamp
from support.scene import SPECS, SUCCESS, Scene, finish, started

GPUS = "requests.nvidia.com/gpu"
TWO_PODS: Json = {"resources": {"gpus": 8, "cpu": "16", "memory": "64Gi"}}
"""The ``run`` of a FineTuneJob over two nodes: 16 GPUs, 32 cores and 128Gi in all."""
SPREAD: Json = {"nodes": 2, "processesPerNode": 8}


def quota(scene: Scene, name: str = "team", *, used: Json | None = None, spec: Json | None = None, **hard: str) -> Ref:
    """A ResourceQuota; keyword arguments are ``hard``, with _ for the dots and slashes that Python does not allow."""
    limits = {GPUS if key == "gpus" else key.replace("_", "."): value for key, value in hard.items()}
    taken = {GPUS if key == "gpus" else key: value for key, value in (used or {}).items()}
    return scene.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": name, "namespace": scene.ref.namespace},
            "spec": {"hard": limits, **(spec or {})},
            "status": {"hard": limits, "used": taken},
        }
    )


def scene_with(run: Json = TWO_PODS) -> Scene:
    scene = Scene(run=run, distributed=SPREAD)
    scene.cluster.objects[scene.ref]["metadata"]["creationTimestamp"] = stamp(scene.now)
    return scene


class TestTheWait:
    def test_it_waits_for_room_for_all_its_pods_and_names_what_is_missing(self) -> None:
        scene = scene_with()
        quota(scene, gpus="16", used={"gpus": "12"})
        scene.settle()
        assert scene.state == ("Queued", "QuotaExceeded")
        assert scene.message == (
            "ResourceQuota team has 4 of 16 requests.nvidia.com/gpu free, and this object needs 16 for 2 pods"
        )
        assert scene.children == ["ResourceQuota/team"]
        assert scene.status.attempts == ()
        assert scene.status.condition("Admitted") is None

    def test_it_is_looked_at_again_and_begins_when_there_is_room(self) -> None:
        scene = scene_with()
        full = quota(scene, gpus="16", used={"gpus": "1"})
        assert scene.reconcile().requeue_after == timedelta(seconds=30)
        scene.cluster.set_status(full, used={GPUS: "0"})
        scene.settle()
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_what_can_never_fit_waits_for_a_person(self) -> None:
        scene = scene_with()
        quota(scene, gpus="8")
        scene.settle()
        assert scene.state == ("Queued", "NeverFits")
        assert scene.status.holds("Stalled")
        assert "allows 8 requests.nvidia.com/gpu in all, and this object needs 16 for 2 pods" in scene.message

    @pytest.mark.parametrize(
        ("resource", "hard"),
        [
            ("cpu", "31"),
            ("requests.cpu", "31500m"),
            ("limits.cpu", "31"),
            ("memory", "127Gi"),
            ("requests.memory", "127Gi"),
            ("limits.memory", "137438953471"),
            ("limits.ephemeral-storage", "19Gi"),
            ("pods", "1"),
            ("count/pods", "1"),
            ("count/pytorchjobs.kubeflow.org", "0"),
            ("configmaps", "0"),
            ("services", "1"),
        ],
    )
    def test_every_resource_counts_under_every_name(self, resource: str, hard: str) -> None:
        scene = scene_with()
        ref = quota(scene)
        scene.cluster.set_status(ref, hard={resource: hard}, used={})
        scene.settle()
        assert scene.state == ("Queued", "NeverFits")
        assert f" {resource} in all" in scene.message

    def test_exactly_enough_is_enough(self) -> None:
        scene = scene_with()
        quota(scene, gpus="16", cpu="32", memory="128Gi", pods="2", limits_cpu="32k")
        scene.settle()
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_the_tightest_of_several_quotas_decides(self) -> None:
        scene = scene_with()
        quota(scene, "wide", gpus="64")
        quota(scene, "narrow", gpus="16", used={"gpus": "1"})
        scene.settle()
        assert "ResourceQuota narrow" in scene.message

    @pytest.mark.parametrize(
        ("spec", "counts"),
        [
            ({"scopes": ["NotTerminating"]}, True),
            ({"scopes": ["NotBestEffort", "NotTerminating"]}, True),
            ({"scopes": ["Terminating"]}, False),
            ({"scopes": ["BestEffort"]}, False),
            ({"scopes": ["SomethingNew"]}, False),
            ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}}, False),
            ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn"}]}}, True),
        ],
    )
    def test_a_quota_counts_when_its_scopes_select_the_pods(self, spec: Json, *, counts: bool) -> None:
        scene = scene_with()
        quota(scene, gpus="16", used={"gpus": "1"}, spec=spec)
        scene.settle()
        assert (scene.state[1] == "QuotaExceeded") is counts

    @pytest.mark.parametrize("hard", ["plenty", None, {"a": 1}, "1e"])
    def test_a_garbled_quota_is_passed_over(self, hard: Any) -> None:
        scene = scene_with()
        scene.cluster.set_status(quota(scene), hard={GPUS: hard}, used=hard)
        scene.settle()
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_with_a_queue_it_is_the_queues_affair(self) -> None:
        scene = scene_with({**TWO_PODS, "queue": "team-a"})
        quota(scene, gpus="1")
        scene.settle()
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_an_attempt_under_way_is_not_asked_again(self) -> None:
        scene = started(run=TWO_PODS, distributed=SPREAD)
        quota(scene, gpus="16", used={"gpus": "16"})
        scene.settle()
        assert scene.state == ("Running", "Running")
        scene.end_workers(0, SUCCESS)
        scene.settle()
        assert scene.state == ("Succeeded", "Succeeded")


class TestOthersWhoWantTheSame:
    def other(self, scene: Scene, name: str, *, older: bool = True, **run: Any) -> Ref:
        """Another FineTuneJob with the same needs."""
        mine = scene.cluster.objects[scene.ref]
        came = scene.now + timedelta(hours=-1 if older else 1)
        metadata = {"name": name, "namespace": "team", "creationTimestamp": stamp(came)}
        spec = {**mine["spec"], "run": {**mine["spec"]["run"], **run}}
        return scene.cluster.apply({**mine, "metadata": metadata, "spec": spec, "status": {}})

    def test_of_two_that_come_at_once_the_older_one_begins(self) -> None:
        scene = scene_with()
        older = self.other(scene, "older")
        quota(scene, gpus="16")
        scene.settle()
        assert scene.state == ("Queued", "QuotaExceeded")
        assert "free after objects that came first" in scene.message
        finish(reconcile(scene.cluster, older, scene.settings, now=scene.now))
        assert "PyTorchJob/older-finetune-1" in scene.children

    def test_pods_still_to_be_made_are_kept_free_and_count_once_when_they_are(self) -> None:
        scene = scene_with()
        older = self.other(scene, "older")
        room = quota(scene, gpus="24")
        finish(reconcile(scene.cluster, older, scene.settings, now=scene.now))
        scene.settle()
        assert scene.state == ("Queued", "QuotaExceeded"), "what is still to be made is as good as used"
        scene.start_pods()
        scene.cluster.set_status(room, hard={GPUS: "32"}, used={GPUS: "16"})
        scene.settle()
        assert "PyTorchJob/x-finetune-1" in scene.children

    @pytest.mark.parametrize(
        "why", ["younger", "waits for its input", "suspended", "finished", "in a queue", "too large itself"]
    )
    def test_who_cannot_take_it_holds_nobody_up(self, why: str) -> None:
        scene = scene_with()
        runs: dict[str, Json] = {"suspended": {"suspend": True}, "in a queue": {"queue": "team-a"}}
        run = runs.get(why, {})
        if why == "too large itself":
            run = {"resources": {**TWO_PODS["resources"], "cpu": "128"}}
        other = self.other(scene, "other", older=why != "younger", **run)
        ready: Json = {"type": "Ready", "status": "False", "reason": "WaitingForArtifact"}
        if why == "waits for its input":
            scene.cluster.set_status(other, conditions=[ready])
        if why == "finished":
            scene.cluster.set_status(other, completionTime=stamp(scene.now))
        quota(scene, gpus="16", cpu="64")
        scene.settle()
        assert "PyTorchJob/x-finetune-1" in scene.children

    def test_of_many_only_as_many_begin_as_have_room(self) -> None:
        scene = scene_with()
        others = [self.other(scene, f"o-{number}", older=number % 2 == 0) for number in range(9)]
        quota(scene, gpus="48")
        for ref in [*reversed(others), scene.ref] * 3:
            finish(reconcile(scene.cluster, ref, scene.settings, now=scene.now))
        assert len(scene.cluster.of_kind("PyTorchJob")) == 3
        reasons = Counter(self.reason(scene, ref) for ref in [*others, scene.ref])
        assert reasons == {"QuotaExceeded": 7, "Starting": 3}

    def reason(self, scene: Scene, ref: Ref) -> str:
        ready = read_status(scene.cluster.objects[ref]["status"]).condition("Ready")
        return ready.reason if ready is not None else ""


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(
    "run", [{}, {"resources": {**TWO_PODS["resources"], "gpus": 1}}], ids=["by default", "as told"]
)
def test_the_needs_of_an_object_are_those_of_its_children(kind: str, run: Json) -> None:
    scene = started(kind, run=run)
    made = [obj for ref, obj in scene.cluster.objects.items() if ref.kind in ("Job", "PyTorchJob", "StatefulSet")]
    pods = [scene.cluster.objects[pod]["spec"] for pod in scene.pods()]
    asked: dict[str, Decimal] = {}
    for pod in pods:
        for side, amounts in pod["containers"][0]["resources"].items():
            for resource, amount in amounts.items():
                name, number = f"{side}.{resource}", to_amount(amount)
                assert number is not None
                asked[name] = asked.get(name, Decimal()) + number
    wanted = needs(scene.cluster.objects[scene.ref])
    assert wanted is not None
    assert wanted.pods == len(pods)
    told = {key: amount for key, amount in wanted.total.items() if key.startswith(("requests.", "limits."))}
    assert told == {key: amount for key, amount in asked.items() if amount}
    counted = Counter(f"count/{obj['kind'].lower()}s.{obj['apiVersion'].split('/')[0]}" for obj in made)
    assert {key: wanted.objects[key] for key in counted} == counted
    assert wanted.objects["configmaps"] == len(scene.cluster.of_kind("ConfigMap"))


def test_needs_that_cannot_be_read_are_none() -> None:
    broken = {"apiVersion": labels.API_VERSION, "kind": "FineTuneJob", "spec": {"run": {"resources": {"gpus": "many"}}}}
    assert needs(broken) is None


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("8", 8),
        (8, 8),
        ("500m", Decimal("0.5")),
        ("0.5", Decimal("0.5")),
        ("1k", 1000),
        ("2M", 2_000_000),
        ("1e3", 1000),
        ("12E", 12 * 10**18),
        ("1e-3", Decimal("0.001")),
        ("64Gi", 64 * 2**30),
        ("1.5Ki", 1536),
        ("1Ei", 2**60),
        ("100n", Decimal("0.0000001")),
        ("-1", -1),
    ],
)
def test_a_quantity_is_read_as_the_cluster_writes_it(quantity: object, amount: Decimal | int) -> None:
    assert to_amount(quantity) == amount


@pytest.mark.parametrize("garbled", ["", "many", "1..2", "5x", "Gi", None, [], "1e9999", "1 Gi"])
def test_what_is_no_quantity_is_none(garbled: object) -> None:
    assert to_amount(garbled) is None


@pytest.mark.parametrize(
    ("amount", "quantity"), [("0", "0"), ("0.5", "0.5"), ("16", "16"), ("1000", "1000"), ("68719476736", "64Gi")]
)
def test_an_amount_is_shown_briefly(amount: str, quantity: str) -> None:
    assert to_quantity(Decimal(amount)) == quantity
