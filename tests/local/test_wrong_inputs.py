"""Wrong inputs as a user meets them: the command says what is wrong, where, and what to do; and it ends by itself."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from posttrain.local.addresses import Addresses
from posttrain_contract import layout
from support.pipeline import Pipeline


class Folder(Pipeline):
    """A user's folder with a copy of the quickstart and the claim that it reads."""

    def told(self, status: int, *options: str) -> str:
        """Runs the command and returns all that it wrote."""
        command = [sys.executable, "-m", "posttrain", "run", "manifests", *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == status, output
        assert "Traceback" not in output
        return output


@pytest.fixture
def folder(tmp_path: Path, quickstart_inputs: Path) -> Folder:
    return Folder(tmp_path, quickstart_inputs)


def test_an_unknown_field(folder: Folder) -> None:
    folder.change("2-finetune.yaml", training={"learningRat": 1e-3})
    output = folder.told(3)
    assert "2-finetune.yaml:" in output
    assert "spec.training.learningRat: unknown field; did you mean learningRate?" in output


def test_two_unions_at_once(folder: Folder) -> None:
    folder.change("3-rl.yaml", model={"from": "FineTuneJob/addition-sft", "uri": "pvc://posttrain/x"})
    assert "spec.model: set exactly one of from and uri" in folder.told(3)


def test_a_reference_to_nothing(folder: Folder) -> None:
    folder.change("3-rl.yaml", model={"from": "FineTuneJob/addition-sfd"})
    output = folder.told(3)
    assert "spec.model.from: FineTuneJob/addition-sfd does not exist" in output
    assert "did you mean FineTuneJob/addition-sft?" in output


def test_a_cycle(folder: Folder) -> None:
    folder.change("1-filter.yaml", source={"from": "FilterJob/hard-problems"})
    assert "FilterJob/hard-problems -> FilterJob/hard-problems" in folder.told(3)


def test_every_error_is_told_at_once(folder: Folder) -> None:
    folder.change("1-filter.yaml", byLabel={"column": "pass_rate"})
    folder.change("2-finetune.yaml", training={"epochs": -1})
    output = folder.told(3)
    assert "spec.byLabel: set min, max or both" in output
    assert "spec.training.epochs" in output


def test_a_missing_label_column_lists_what_there_is(folder: Folder) -> None:
    folder.keep("1-filter.yaml")
    folder.change("1-filter.yaml", byLabel={"column": "passrate", "max": 0.7})
    output = folder.told(1)
    assert "passrate" in output
    assert "problem, solution, answer, pass_rate" in output


def test_a_missing_training_column_lists_what_there_is(folder: Folder) -> None:
    folder.keep("2-finetune.yaml")
    data = {"uri": "pvc://posttrain/quickstart/heldout.jsonl", "columns": {"prompt": "question"}}
    folder.change("2-finetune.yaml", dataset=data)
    output = folder.told(1)
    assert "question" in output
    assert "problem" in output


def test_a_shard_that_is_not_json(folder: Folder) -> None:
    folder.keep("1-filter.yaml")
    shard = folder.claim / "quickstart" / "problems" / "part-00000.jsonl"
    shard.write_text(shard.read_text().replace("\n", "\nnot json\n", 1))
    assert "part-00000.jsonl:2" in folder.told(1)


def test_a_model_folder_without_tokenizer(folder: Folder) -> None:
    folder.keep("1-filter.yaml", "2-finetune.yaml")
    for path in (folder.claim / "quickstart" / "base-model").glob("tokenizer*"):
        path.unlink()
    output = folder.told(1)
    assert "tokenizer" in output
    assert "spec.model" in output


def test_an_unwritable_output(folder: Folder) -> None:
    folder.keep("1-filter.yaml")
    (folder.claim / "default").write_text("a file where the run folders should be")
    output = folder.told(1)
    assert "run.storage.claim" in output
    assert "cannot write" in output


def test_a_full_disk(folder: Folder, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        folder.keep("1-filter.yaml")
        shutil.copytree(folder.claim / "quickstart" / "problems", small / "quickstart" / "problems")
        folder.change("1-filter.yaml", run={"retries": 0})
        output = folder.told(1, "--claim", f"posttrain={small}")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert "DiskFull" in output
    assert "larger claim" in output


def test_a_port_that_is_taken(folder: Folder) -> None:
    folder.keep("1-filter.yaml")
    folder.change("1-filter.yaml", run={"retries": 0})
    network = Addresses(folder.folder / ".posttrain")
    taken = [network.of(str(number)) for number in range(16)]
    sockets = [_listen(address) for address in taken]
    try:
        output = folder.told(1)
    finally:
        for listening in sockets:
            listening.close()
    assert f"port {layout.TELEMETRY_PORT}" in output
    assert "in use by another program" in output


def _listen(address: str) -> socket.socket:
    listening = socket.socket()
    listening.bind((address, layout.TELEMETRY_PORT))
    listening.listen()
    return listening


def test_a_file_uri_with_no_file(folder: Folder) -> None:
    folder.keep("1-filter.yaml")
    folder.change("1-filter.yaml", source={"uri": f"file://{os.fspath(folder.folder)}/nothing"})
    assert "spec.source: nothing is at file://" in folder.told(1)
