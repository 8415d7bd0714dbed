"""`make e2e` works on the cluster that is there, and makes one of kind where Docker is and none is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OWN = ROOT / ".posttrain/kubeconfig"
MADE = ["bring up", "build operator", "build cpu", "load"]


class Machine:
    """A machine with kubectl. The commands that take long only say that they were called."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.up = 'echo "bring up"'
        self.kubeconfig = ""

    def has(self, name: str, body: str) -> None:
        """Puts a program into the search path, before what this machine has."""
        (self.programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.programs / name).chmod(0o755)

    def has_context(self, name: str) -> None:
        self.has("kubectl", f'case "$*" in *current-context) echo {name};; esac')

    def make_e2e(self) -> tuple[int, list[str]]:
        """Exit status, and what was called."""
        tools = {"BIN": str(Path(sys.executable).parent), "E2E": 'echo "$$KUBECONFIG:"', "UP": self.up}
        tools |= {
            "BUILD": "sh -c 'case $$1 in *operator*) echo build operator;; *) echo build cpu;; esac'",
            "LOAD": "sh -c 'echo load'",
        }
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "KUBECONFIG": self.kubeconfig}
        environment.pop("KUBECTL", None)
        command = ["make", "--silent", "--old-file=setup", "e2e", *(f"{name}={text}" for name, text in tools.items())]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.has("kubectl", "echo current-context is not set >&2; exit 1")
    made.has("docker", "exit 0")
    made.has("kind", "exit 0")
    return made


@pytest.mark.parametrize("kubeconfig", ["", "/some/kubeconfig"])
def test_a_cluster_for_trials_that_is_there_is_taken(machine: Machine, kubeconfig: str) -> None:
    machine.has_context("kind-mine")
    machine.kubeconfig = kubeconfig
    assert machine.make_e2e() == (0, [f"{kubeconfig}: tests/e2e"])


def test_where_none_is_there_kind_makes_one_with_the_images_of_this_checkout(machine: Machine) -> None:
    assert machine.make_e2e() == (0, [*MADE, f"{OWN}: tests/e2e"])


def test_a_cluster_of_somebody_else_is_left_alone_and_its_context_stays(machine: Machine) -> None:
    machine.has_context("production")
    assert machine.make_e2e() == (0, [*MADE, f"{OWN}: tests/e2e"])


@pytest.mark.parametrize("program", ["docker", "kind"])
def test_without_docker_or_kind_the_tests_themselves_say_why_they_are_skipped(machine: Machine, program: str) -> None:
    machine.has(program, "exit 1")
    assert machine.make_e2e() == (0, [": tests/e2e"])


def test_a_kubeconfig_that_was_named_is_never_replaced(machine: Machine) -> None:
    machine.kubeconfig = "/some/kubeconfig"
    assert machine.make_e2e() == (0, ["/some/kubeconfig: tests/e2e"])


def test_a_cluster_that_does_not_come_up_is_a_failure(machine: Machine) -> None:
    machine.up = "false"
    code, called = machine.make_e2e()
    assert code != 0
    assert called == []
