"""What tests run in a cluster beside the operator's own pods: restricted pods of the image that has every stage."""

import base64
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from support import tiny
from support.kubectl import Json
from support.on_cluster import OnCluster

IMAGE: Final = "posttrain/cpu:dev"
"""As ``manifests/overlays/kind`` names it; the node has it, and it is never pulled."""
CLAIM: Final = "posttrain"
_ARCHIVE: Final = "inputs.tar"
_LARGEST: Final = 1_000_000
"""Bytes that a ConfigMap may hold, and a little less."""
_NONE: Final[Mapping[str, Json]] = MappingProxyType({})

UNPACK: Final = "import tarfile; tarfile.open('/inputs/inputs.tar').extractall('/claim/tiny')"
CHECK: Final = """
from pathlib import Path
from posttrain_contract import layout
from posttrain_runtime import store
for path in sorted(Path("/claim").rglob(layout.MANIFEST)):
    if path.parent.parent.name == layout.PREPARED:
        continue
    manifest = store.read_manifest(path.parent)
    damage = "no manifest" if manifest is None else store.damage(path.parent, manifest, hashes=True)
    print(path.parent.parent.name, damage or "whole", manifest and manifest.digest)
"""
"""Run beside the claim: one line for each artifact on it. Prepared rows are kept in the same way, and are nobody's."""


def pod_spec(command: Sequence[str], *, mounts: Mapping[str, Json] = _NONE) -> Json:
    """A restricted pod that runs a command with volumes at some paths."""
    volumes = {f"volume-{number}": (path, source) for number, (path, source) in enumerate(mounts.items())}
    amounts = {"cpu": "50m", "memory": "256Mi"}
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": [*command],
        "resources": {"requests": amounts, "limits": {**amounts, "cpu": "500m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": name, **source} for name, (_, source) in volumes.items()],
    }


def claim() -> Json:
    """The claim that jobs read and write; one node is enough for all of a test's pods."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": spec}


def of_claim() -> Json:
    """The volume of the claim."""
    return {"persistentVolumeClaim": {"claimName": CLAIM}}


def run_python(scene: OnCluster, name: str, script: str, *, mounts: Mapping[str, Json] = _NONE) -> str:
    """What a Python program prints that runs to its end in a pod of a scene's namespace."""
    template = {"spec": pod_spec(["python", "-c", script], mounts=mounts)}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    scene.kubectl.apply([{**job, "spec": {"backoffLimit": 0, "template": template}}])
    scene.wait_for_job(name)
    return scene.kubectl.run("logs", f"job/{name}")


def artifacts(scene: OnCluster) -> dict[str, tuple[str, str]]:
    """The artifacts on the claim: by object, how its files compare with its manifest, and its digest."""
    lines = run_python(scene, "artifacts", CHECK, mounts={"/claim": of_claim()}).splitlines()
    return {(found := line.rsplit(maxsplit=2))[0]: (found[1], found[2]) for line in lines}


def tiny_archive(folder: Path) -> bytes:
    """The tiny model and its problems as one file."""
    tiny.make_tiny_inputs(folder)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return file.getvalue()


def fill(scene: OnCluster, archive: bytes) -> None:
    """Makes the claim of a namespace, with the tiny inputs below ``tiny`` on it; starts no heavy program for that."""
    assert len(archive) <= _LARGEST, "the tiny inputs must fit into a ConfigMap"
    data = {_ARCHIVE: base64.b64encode(archive).decode()}
    inputs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inputs"}, "binaryData": data}
    scene.kubectl.create([inputs, claim()])
    run_python(scene, "inputs", UNPACK, mounts={"/inputs": {"configMap": {"name": "inputs"}}, "/claim": of_claim()})
