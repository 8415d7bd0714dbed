"""A real cluster, asked and told through kubectl."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
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
    """kubectl in one namespace of the cluster that KUBECONFIG names."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *arguments: str, text: str | None = None, seconds: float = _SECONDS) -> str:
        """What kubectl writes to standard output. Raises ``KubectlError``."""
        return _run("--namespace", self.namespace, *arguments, text=text, seconds=seconds)

    def apply(self, objects: Iterable[Json]) -> None:
        """``kubectl apply``, as a user does it."""
        self.run("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def objects(self, *kinds: str) -> list[Json]:
        """Every object of these kinds in the namespace."""
        items: list[Json] = json.loads(self.run("get", ",".join(kinds), "--output", "json"))["items"]
        return items

    def logs(self, pod: str, *, lines: int) -> str:
        """The last lines of a pod's log, or why there are none."""
        try:
            return self.run("logs", pod, "--all-containers", "--tail", str(lines))
        except KubectlError as error:
            return str(error)


def connection() -> Json:
    """The cluster of the present context as a kubeconfig of its own."""
    found: Json = yaml.safe_load(_run("config", "view", "--minify", "--flatten", "--raw"))
    return found


def unusable() -> str | None:
    """Why there is no cluster that tests may work on, or None."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG is not set"
    if shutil.which(PROGRAM) is None:
        return f"there is no {PROGRAM}; put kubectl on PATH or name it in KUBECTL"
    try:
        context = _run("config", "current-context").strip()
        if CONTEXTS.fullmatch(context) is None:
            return f"KUBECONFIG's context is {context}, and only kind-* and posttrain* are for tests"
        _run("get", "--raw", "/readyz", seconds=10)
        _run("get", "crd", "pytorchjobs.kubeflow.org")
    except KubectlError as error:
        return str(error)
    return None


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
