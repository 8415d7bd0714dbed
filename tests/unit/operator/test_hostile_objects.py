"""Objects of which anything may be wrong: a pass never ends with a defect, and says what is the matter."""

import random

import pytest
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Reason
from posttrain_operator.reconcile import Outcome
from support.mutations import poisoned
from support.scene import SPECS, SUCCESS, Scene

REASONS = {reason.value for reason in Reason}
PASSES = 3


def somewhere(chance: random.Random) -> Scene:
    """A job at some point of its life."""
    scene = Scene(chance.choice(sorted(SPECS)), run={"retries": 1, "deadline": "1h"})
    point = chance.randrange(5)
    for _ in range(point):
        scene.settle()
        scene.start_pods()
    if point == 4:
        scene.end_workers(chance.choice([0, 1, 147]), SUCCESS)
        scene.settle()
    return scene


def poison(scene: Scene, chance: random.Random) -> None:
    """Some of the objects are not what they were."""
    for ref, obj in [*scene.cluster.objects.items()]:
        if ref == scene.ref or chance.random() < 0.4:
            scene.cluster.apply(kept_apart(poisoned(chance, obj)))


def kept_apart(obj: Json) -> Json:
    """Spec and status are objects, whatever is in them: no API server stores anything else."""
    return {key: value for key, value in obj.items() if key not in ("spec", "status") or isinstance(value, dict)}


def check(seed: int) -> None:
    chance = random.Random(seed)
    scene = somewhere(chance)
    poison(scene, chance)
    for _ in range(PASSES):
        assert isinstance(scene.reconcile(), Outcome), seed
        scene.wait()
    raw = scene.cluster.objects[scene.ref]
    status = read_status(raw["status"])
    ready = status.condition("Ready")
    assert status.finished or (ready is not None and ready.reason in REASONS), (seed, ready)


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_a_pass_over_anything_says_what_is_the_matter(first: int) -> None:
    for seed in range(first, first + 250):
        check(seed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(1000, 11_000, 1000))
def test_a_pass_over_ten_thousand_more_says_what_is_the_matter(first: int) -> None:
    for seed in range(first, first + 1000):
        check(seed)
