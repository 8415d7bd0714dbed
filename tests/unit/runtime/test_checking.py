"""``--version`` and ``--check`` of the programs, as somebody asks a built image."""

import subprocess
import sys
from importlib import metadata

import pytest
from posttrain_runtime import checking
from posttrain_runtime.checking import check_image

STAGES = ("filter", "finetune", "rl", "serve", "upload")


def ask(stage: str, option: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"posttrain_{stage}", option], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_tells_its_version(stage: str) -> None:
    done = ask(stage, "--version")
    assert (done.returncode, done.stdout) == (0, f"posttrain-{stage} {checking.version(stage)}\n")


def test_the_operator_tells_its_version() -> None:
    command = [sys.executable, "-m", "posttrain_operator", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"posttrain-operator {checking.version('operator')}\n"


def test_the_operator_looks_whether_it_could_start() -> None:
    command = [sys.executable, "-m", "posttrain_operator", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    other_kopf = "import kopf, runpy, sys; del kopf.OperatorSettings; sys.argv = ['', '--check']"
    start = "runpy.run_module('posttrain_operator', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", f"{other_kopf}; {start}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OperatorSettings" in done.stderr


def test_a_whole_image_passes_and_tells_what_it_has() -> None:
    done = ask("filter", "--check")
    assert done.returncode == 0, done.stdout
    assert "pyarrow: " in done.stdout
    assert "regex: " in done.stdout, "what our own distributions declare counts too"
    assert "scratch: " in done.stdout


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_image("filter", modules=["no_such_module"], libraries=["nosuchlibrary"]) == 1
    told = capsys.readouterr().out
    assert "no_such_module: MISSING: ModuleNotFoundError" in told
    assert "libnosuchlibrary: MISSING: OSError: libnosuchlibrary is not installed" in told


def test_a_module_may_come_from_a_distribution_of_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_image("filter", modules=["yaml"]) == 0
    assert f"yaml: {metadata.version('pyyaml')}\n" in capsys.readouterr().out


def test_a_place_to_write_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    assert check_image("filter") == 1
    assert "scratch: MISSING: FileNotFoundError" in capsys.readouterr().out
