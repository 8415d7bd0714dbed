"""Volumes of local pods: a folder of symbolic links in the shape of a pod's mount root."""

from collections.abc import Callable
from pathlib import Path

from posttrain_contract import layout
from posttrain_operator.cluster import Json

from posttrain.local.workspace import LocalOptions


class MountError(Exception):
    """A volume that cannot be provided; the message names the claim and the remedy."""


class Mounts:
    """Makes the mount roots of pods. ``config_map`` finds a ConfigMap by namespace and name."""

    def __init__(self, options: LocalOptions, config_map: Callable[[str, str], Json]) -> None:
        self._options = options
        self._config_map = config_map

    def folder(self, pod: Json) -> Path:
        """The folder that holds a pod's mount root."""
        return self._options.pod(pod["metadata"]["name"], pod["metadata"]["uid"])

    def prepare(self, pod: Json) -> Path:
        """Makes the mount root of a pod, with an empty termination message. Raises ``MountError``."""
        root = self.folder(pod) / layout.MOUNT_ROOT.removeprefix("/")
        root.mkdir(parents=True, exist_ok=True)
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for mount in pod["spec"]["containers"][0]["volumeMounts"]:
            if mount["mountPath"].startswith(f"{layout.MOUNT_ROOT}/"):
                where = root / mount["mountPath"].removeprefix(f"{layout.MOUNT_ROOT}/")
                where.parent.mkdir(parents=True, exist_ok=True)
                self._mount(volumes[mount["name"]], where, namespace=pod["metadata"]["namespace"])
        (root / layout.TERMINATION_LOG).write_bytes(b"")
        return root

    def _mount(self, volume: Json, where: Path, *, namespace: str) -> None:
        if "configMap" in volume:
            where.mkdir(exist_ok=True)
            for name, text in self._config_map(namespace, volume["configMap"]["name"])["data"].items():
                (where / name).write_text(text, encoding="utf-8")
        elif "persistentVolumeClaim" in volume:
            _link(where, self._claim(volume["persistentVolumeClaim"]["claimName"]))
        else:
            _link(where, Path(volume["hostPath"]["path"]))

    def _claim(self, name: str) -> Path:
        """The folder of a claim; one below the workspace is made when it is missing, one that was named must exist."""
        folder = self._options.claim(name)
        if name not in self._options.claims:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"claim {name}: cannot make its folder {folder}: {error.strerror}; use --claim {name}=DIR"
                raise MountError(message) from error
        if not folder.is_dir():
            raise MountError(f"claim {name}: {folder} is no folder; make it, or use --claim {name}=DIR")
        return folder


def _link(where: Path, target: Path) -> None:
    if where.is_symlink():
        where.unlink()
    where.symlink_to(target, target_is_directory=target.is_dir())
