"""A real cluster, asked and told through kubectl."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

PROGRAM: Final = os.environ.get("KUBECTL", "kubectl")
CONTEXTS: Final = re.compile(r"kind-.+|posttrain(-.+)?")
"""Contexts of clusters that are there to be tried on. Everybody else's are left alone."""
_SECONDS: Final = 60.0

Json = dict[str, Any]


class KubectlError(Exception):
    """What kubectl said when it failed."""


class NamespacedKubectl:
    """kubectl in one namespace of the cluster that is there to be tried on."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *arguments: str, text: str | None = None, seconds: float = _SECONDS) -> str:
        """What kubectl writes to standard output. Raises ``KubectlError``."""
        return _ask("--namespace", self.namespace, *arguments, text=text, seconds=seconds)

    def apply(self, objects: Iterable[Json]) -> None:
        """``kubectl apply``, as a user does it."""
        self.run("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def create(self, objects: Iterable[Json]) -> None:
        """``kubectl create``, which takes objects that are too large for ``apply``."""
        self.run("create", "-f", "-", text=yaml.safe_dump_all(objects))

    def python(self, pod: str, script: str, *arguments: str, seconds: float = _SECONDS) -> str:
        """What a Python program prints in the first container of a pod, or of a pod of ``deployment/NAME``."""
        return self.run("exec", pod, "--", "python", "-c", script, *arguments, seconds=seconds)

    def objects(self, *kinds: str) -> list[Json]:
        """Every object of these kinds in the namespace."""
        items: list[Json] = json.loads(self.run("get", ",".join(kinds), "--output", "json"))["items"]
        return items

    def logs(self, pod: str, *, lines: int) -> str:
        """The last lines of a pod's log, or why there are none; and those of a container that was started again."""
        told = []
        for options in (("--previous",), ()):
            try:
                told.append(self.run("logs", pod, "--all-containers", "--tail", str(lines), *options))
            except KubectlError as error:
                told += [] if options else [str(error)]  # most have no predecessor
        return "\n".join(told)


def kustomize(folder: Path, *, namespace: str) -> list[Json]:
    """The objects that a folder comes to, with another namespace than the one that they are written for."""
    made: list[Json] = [obj for obj in yaml.safe_load_all(_run("kustomize", str(folder))) if obj]
    for obj in made:
        if obj["kind"] == "Namespace":
            obj["metadata"]["name"] = namespace
        elif "namespace" in obj["metadata"]:
            obj["metadata"]["namespace"] = namespace
    return made


def has_kind(name: str) -> bool:
    """Whether the cluster has a CustomResourceDefinition."""
    return bool(_ask("get", "crd", name, "--ignore-not-found", "--output", "name"))


@functools.cache
def context() -> str:
    """The context that kubectl has, if it is there to be tried on. Raises ``KubectlError``.

    It is asked for once and then named in every command: a ``kubectl config use-context`` meanwhile moves nothing.
    """
    name = _run("config", "current-context").strip()
    if CONTEXTS.fullmatch(name) is None:
        message = f"kubectl's context is {name}, and only kind-* and posttrain* are for tests"
        raise KubectlError(message)
    return name


def unusable() -> str | None:
    """Why there is no cluster that tests may work on, or None."""
    if shutil.which(PROGRAM) is None:
        return f"there is no {PROGRAM}; put kubectl on PATH or name it in KUBECTL"
    try:
        _ask("get", "--raw", "/readyz", seconds=10)
        _ask("get", "crd", "pytorchjobs.kubeflow.org")
    except KubectlError as error:
        return str(error)
    return None


def _ask(*arguments: str, text: str | None = None, seconds: float = _SECONDS) -> str:
    return _run("--context", context(), *arguments, text=text, seconds=seconds)


def _run(*arguments: str, text: str | None = None, seconds: float = _SECONDS) -> str:
    try:
        done = subprocess.run(
            [PROGRAM, *arguments], input=text, capture_output=True, text=True, check=True, timeout=seconds
        )
    except subprocess.CalledProcessError as error:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise KubectlError(f"kubectl {' '.join(arguments)}: no answer in {seconds:.0f} s") from error
    return done.stdout
