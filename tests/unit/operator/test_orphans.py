"""Children whose owner reference somebody took away: they go when no job needs them, and nobody else's do."""

from collections.abc import Callable

import pytest
from posttrain_operator.cluster import Ref
from posttrain_operator.orphans import collect
from support.scene import SUCCESS, Scene, finish, started


def stripped(scene: Scene, kind: str) -> Ref:
    """The first child of a kind, without its owner."""
    (ref, *_) = scene.cluster.of_kind(kind)
    del scene.cluster.objects[ref]["metadata"]["ownerReferences"]
    return ref


def deletes_the_job(scene: Scene) -> None:
    del scene.cluster.objects[scene.ref]


def succeeds(scene: Scene) -> None:
    scene.end_workers(0, SUCCESS)
    scene.settle()


def suspends(scene: Scene) -> None:
    scene.cluster.edit(scene.ref, run={"suspend": True})
    scene.settle()
    scene.end_stopped_pods()
    scene.settle()


@pytest.mark.parametrize("kind", ["StatefulSet", "Service", "ConfigMap"])
@pytest.mark.parametrize("what", [deletes_the_job, succeeds, suspends])
def test_what_no_job_needs_goes(kind: str, what: Callable[[Scene], None]) -> None:
    scene = started("RLJob")
    child = stripped(scene, kind)
    what(scene)
    finish(collect(scene.cluster))
    assert child not in scene.cluster.objects


@pytest.mark.parametrize("kind", ["StatefulSet", "Service", "ConfigMap"])
def test_what_the_present_attempt_may_need_stays(kind: str) -> None:
    scene = started("RLJob")
    child = stripped(scene, kind)
    finish(collect(scene.cluster))
    assert child in scene.cluster.objects


def test_what_has_an_owner_is_the_garbage_collectors() -> None:
    scene = started("RLJob")
    before = [*scene.cluster.objects]
    del scene.cluster.objects[scene.ref]
    finish(collect(scene.cluster))
    assert [*scene.cluster.objects] == [ref for ref in before if ref != scene.ref]


def test_objects_of_others_stay() -> None:
    scene = started("RLJob")
    child = stripped(scene, "ConfigMap")
    scene.cluster.objects[child]["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "somebody"}
    deletes_the_job(scene)
    finish(collect(scene.cluster))
    assert child in scene.cluster.objects
