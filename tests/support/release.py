"""What a release leaves in a cluster: its CRDs, and objects at every point of their lives.

``python -m support.release FOLDER``, in the folder of the tests, writes them with the present code: for a release.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Json, Ref
from support.scene import SPECS, SUCCESS, Scene, failure

ROOT: Final = Path(__file__).resolve().parents[2]


def _created(_: Scene) -> None:
    """Nobody has looked at it."""


def _starting(scene: Scene) -> None:
    scene.settle()


def _running(scene: Scene) -> None:
    for _ in range(2):  # servers, then their trainer
        scene.settle()
        scene.start_pods()
    scene.settle()


def _ended(code: int) -> Callable[[Scene], None]:
    def end(scene: Scene) -> None:
        _running(scene)
        scene.end_workers(code, failure(ExitCode(code)) if code else SUCCESS)
        scene.settle()
        scene.end_stopped_pods()
        scene.settle()

    return end


def _suspended(scene: Scene) -> None:
    _running(scene)
    scene.cluster.edit(scene.ref, run={"suspend": True})
    scene.settle()
    scene.end_stopped_pods()
    scene.settle()


POINTS: Final = {
    "created": _created,
    "starting": _starting,
    "running": _running,
    "backing-off": _ended(ExitCode.STORAGE),
    "succeeded": _ended(ExitCode.DONE),
    "failed": _ended(ExitCode.DATA),
    "suspended": _suspended,
}


def objects(kind: str, point: str) -> list[Json]:
    """A job at some point of its life, first, and everything that it has in the cluster."""
    scene = Scene(kind)
    POINTS[point](scene)
    found = scene.cluster.objects
    return [found[scene.ref], *(obj for ref, obj in found.items() if ref != scene.ref)]


def scene_of(docs: list[Json]) -> Scene:
    """The cluster with these objects, and this code's operator."""
    scene = Scene(docs[0]["kind"])
    scene.cluster.objects.clear()
    for obj in docs:
        scene.cluster.apply(obj)
    scene.ref = Ref.of(docs[0])
    return scene


def main(folder: Path) -> None:
    """Writes everything below a folder."""
    shutil.copytree(ROOT / "crds", folder / "crds")
    (folder / "objects").mkdir()
    for kind in SPECS:
        for point in POINTS:
            plain = json.loads(json.dumps(objects(kind, point)))
            text = yaml.safe_dump_all(plain, sort_keys=False, width=120)
            (folder / "objects" / f"{kind.lower()}-{point}.yaml").write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
