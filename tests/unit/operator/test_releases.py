"""What earlier releases left in a cluster: this one takes it over as it is."""

from pathlib import Path

import pytest
import yaml
from posttrain_operator import labels
from posttrain_operator.api.status import Status
from posttrain_operator.cluster import Json
from support.release import POINTS, ROOT, objects, scene_of
from support.scene import SPECS, WORKLOADS, Scene

RELEASES = sorted((ROOT / "tests" / "releases").iterdir())
LEFT = [path for release in RELEASES for path in sorted((release / "objects").glob("*.yaml"))]
"""A file for every kind and point of its life: the job, and what it has in the cluster."""


def read(path: Path) -> list[Json]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def workloads(scene: Scene) -> dict[str, str]:
    """The uids of what computes, by name."""
    found = scene.cluster.objects.items()
    return {str(ref): obj["metadata"]["uid"] for ref, obj in found if ref.kind in (*WORKLOADS, "Pod")}


def told(status: Status) -> Json:
    """What a status says, but for when."""
    return status.model_copy(update={"gpu_seconds": None}).to_json()


@pytest.mark.parametrize("path", LEFT, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_what_is_at_work_or_over_stays_as_it_is(path: Path) -> None:
    scene = scene_of(read(path))
    before, status = workloads(scene), scene.status
    scene.settle()
    after = workloads(scene)
    if path.stem.endswith("-created"):
        assert not before
        assert after
    else:
        assert after == before
        assert scene.status.attempts == status.attempts
        assert scene.status.phase == status.phase
    assert not [write for write in scene.cluster.writes if write.startswith("delete")]


@pytest.mark.parametrize("path", LEFT, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_the_release_would_say_the_same_of_what_this_one_makes_of_it(path: Path) -> None:
    """Going back: a status that this release wrote is one that the release's CRD knows."""
    scene = scene_of(read(path))
    scene.settle()
    crd = yaml.safe_load((path.parents[1] / "crds" / f"{plural(scene)}.{labels.GROUP}.yaml").read_text("utf-8"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert unknown(scene.cluster.objects[scene.ref]["status"], schema) == []


def plural(scene: Scene) -> str:
    return f"{scene.ref.kind.lower()}s"


def unknown(value: object, schema: Json, where: str = "status") -> list[str]:
    """The fields that a schema has not; an API server would drop them."""
    if isinstance(value, list):
        return [field for item in value for field in unknown(item, schema["items"], where)]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    strange = [f"{where}.{key}" for key in value if key not in known]
    return strange + [f for key in value if key in known for f in unknown(value[key], known[key], f"{where}.{key}")]


def test_there_is_a_release_and_it_left_every_kind_at_every_point() -> None:
    assert [release.name for release in RELEASES]
    for release in RELEASES:
        left = {path.stem for path in (release / "objects").glob("*.yaml")}
        assert left == {f"{kind.lower()}-{point}" for kind in SPECS for point in POINTS}
        assert len(list((release / "crds").glob("*.yaml"))) == len(SPECS)


@pytest.mark.parametrize("kind", SPECS)
def test_the_points_of_a_life_are_what_they_are_called(kind: str) -> None:
    phases = {point: objects(kind, point)[0].get("status", {}).get("phase") for point in POINTS}
    assert phases == {
        "created": None,
        "starting": "Starting",
        "running": "Running",
        "backing-off": "Pending",
        "succeeded": "Succeeded",
        "failed": "Failed",
        "suspended": "Suspended",
    }
