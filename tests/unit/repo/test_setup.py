"""`make setup` stops early on a machine that it cannot serve, and says the one thing to do."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


class Machine:
    """A machine on which some programs answer differently."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.script = folder / "hack/setup.sh"
        self.script.parent.mkdir()
        shutil.copy(ROOT / "hack/setup.sh", self.script)
        for name in ("sh", "dirname", "cat", "printf"):
            self.programs.joinpath(name).symlink_to(str(shutil.which(name)))
        self.has("uname", "echo Linux x86_64")
        self.has("id", "echo 1000")
        self.has("apt-get", "exit 99")
        self.has("python3", "exit 0")

    def has(self, name: str, body: str) -> None:
        """Puts a program into the search path."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    def set_up(self) -> str:
        """What setup says; it must have failed."""
        command = [str(self.programs / "sh"), str(self.script)]
        done = subprocess.run(
            command, env={"PATH": str(self.programs)}, capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 1, done
        return done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("platform", ["Darwin arm64", "Linux aarch64"])
def test_another_platform_is_refused_by_name(machine: Machine, platform: str) -> None:
    machine.has("uname", f"echo {platform}")
    assert f"{platform} is not supported: the locked wheels are for x86-64 Linux" in machine.set_up()


def test_no_python_is_said_with_the_way_out(machine: Machine) -> None:
    (machine.programs / "python3").unlink()
    assert "install Python 3.11, or say where it is: make setup PYTHON=" in machine.set_up()


def test_an_unsupported_python_is_named_with_its_version(machine: Machine) -> None:
    machine.has("python3", 'case "$*" in --version) echo Python 3.9.2;; *version_info*) exit 1;; esac')
    said = machine.set_up()
    assert "Python 3.9.2" in said
    assert "3.11 to 3.14" in said


def test_without_venv_the_one_command_is_said(machine: Machine) -> None:
    machine.has("python3", 'case "$*" in *ensurepip*) exit 1;; esac')
    assert "run: sudo apt-get install -y python3-venv" in machine.set_up()


def test_without_libnuma_the_one_command_is_said(machine: Machine) -> None:
    machine.has("python3", 'case "$*" in *libnuma*) exit 1;; esac')
    assert "run: sudo apt-get install -y libnuma1" in machine.set_up()


def test_root_gets_libnuma_installed(machine: Machine) -> None:
    machine.has("python3", 'case "$*" in *libnuma*) exit 1;; esac')
    machine.has("id", "echo 0")
    machine.has("apt-get", 'echo "asked for: $*" >&2; exit 99')
    said = machine.set_up()
    assert "installing libnuma1" in said
    assert "could not be installed; run: apt-get install -y libnuma1" in said


def test_without_a_compiler_the_one_command_is_said(machine: Machine) -> None:
    assert "run: sudo apt-get install -y g++" in machine.set_up()
