"""The quickstart's pipeline as a user runs it: the command in a folder, and what can be seen from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import yaml
from posttrain_contract import layout
from posttrain_contract.artifact import Manifest
from posttrain_runtime import store
from support.waiting import wait_for

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
_MARK: Final = "POSTTRAIN_TEST_PIPELINE"

_EXPECTED: Final = {
    layout.ARTIFACT,
    layout.MANIFEST,
    layout.CHECKPOINTS,
    layout.LOGS,
    layout.PREPARED_KEY,
    layout.RESULT,
    layout.SERVER_KEY,
    ".lock",
}
"""What a run folder may hold when its object has finished."""

Json = dict[str, Any]


class Pipeline:
    """A folder with manifests and inputs, and the runs in it."""

    def __init__(self, folder: Path, inputs: Path) -> None:
        self.folder = folder
        self.claim = folder / ".posttrain" / "claims" / "posttrain"
        shutil.copytree(inputs, self.claim / "quickstart")
        shutil.copytree(EXAMPLE, folder / "manifests", ignore=shutil.ignore_patterns("inputs"))
        self._mark = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    def shorten(self, *, sft_steps: int, rl_steps: int) -> None:
        """Makes the training stages short, with checkpoints in between."""
        self._edit("2-finetune.yaml", sft_steps)
        self._edit("3-rl.yaml", rl_steps)

    def keep(self, *names: str) -> None:
        """Leaves only these manifests."""
        for path in (self.folder / "manifests").glob("*.yaml"):
            if path.name not in names:
                path.unlink()

    def change(self, name: str, **spec: Any) -> None:
        """Replaces parts of one manifest's specification."""
        path = self.folder / "manifests" / name
        manifest = yaml.safe_load(path.read_text())
        manifest["spec"] |= spec
        path.write_text(yaml.safe_dump(manifest))

    def begin_anew(self) -> None:
        """Forgets every object and what it made; the inputs stay."""
        shutil.rmtree(self.folder / ".posttrain" / "objects")
        shutil.rmtree(self.claim / "default")

    def start(self) -> None:
        """Starts ``posttrain run`` in the background."""
        with (self.folder / "err.txt").open("ab") as err, (self.folder / "out.txt").open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "posttrain", "run", "manifests"],
                cwd=self.folder,
                env={**os.environ, _MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait(self, *, seconds: float) -> int:
        """The exit status of the command."""
        assert self._process is not None
        return self._process.wait(seconds)

    def run(self, *, seconds: float) -> int:
        """Starts the command and waits for its end."""
        self.start()
        return self.wait(seconds=seconds)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the command alone, not to what it started."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends the command and everything that it started, without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        while left := self.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=10)

    @property
    def ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        return (self.folder / "out.txt").read_text()

    @property
    def messages(self) -> str:
        """Everything that all runs told people."""
        return (self.folder / "err.txt").read_text()

    @property
    def objects(self) -> dict[str, Json]:
        """The objects by kind."""
        paths = (self.folder / ".posttrain" / "objects").glob("*.json")
        return {obj["kind"]: obj for obj in map(_read, paths)}

    def status(self, kind: str) -> Json:
        """The status of the object of a kind; empty before its first."""
        status: Json = self.objects.get(kind, {}).get("status", {})
        return status

    def step(self, kind: str) -> int:
        """How many steps the object of a kind has told of while training."""
        progress = self.status(kind).get("progress") or {}
        return int(progress["step"]) if progress.get("phase") == "training" else 0

    def processes(self) -> list[psutil.Process]:
        """Every living process of any run in this folder."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def assert_no_process_is_left(self, *, seconds: float) -> None:
        """Nothing of the run may outlive it."""
        wait_for(lambda: not self.processes(), f"the end of {self._names()}", seconds=seconds)

    def run_folders(self) -> list[Path]:
        """The run folder of every object that ever ran."""
        kinds = [folder for folder in (self.claim / "default").glob("*") if folder.name != layout.PREPARED]
        return sorted(folder for kind in kinds for folder in kind.glob("*"))

    def assert_nothing_is_left_over(self) -> None:
        """A finished run folder has what a reader may look for, and nothing that a crash or an attempt left."""
        for folder in self.run_folders():
            unexpected = {path.name for path in folder.iterdir()} - _EXPECTED
            assert not unexpected, f"{folder}: {unexpected}"
            broken = [path.name for path in (folder / layout.CHECKPOINTS).glob("broken-*")]
            assert len(broken) <= 1, f"{folder}: {broken}"

    def assert_artifacts_are_whole(self) -> int:
        """Every artifact under its final name is what its manifest says, byte for byte; how many objects have one.

        Prepared rows are kept in the same way, and belong to no object.
        """
        folders = [path.parent for path in self.claim.rglob(layout.MANIFEST)]
        for folder in folders:
            manifest = Manifest.model_validate_json((folder / layout.MANIFEST).read_bytes())
            assert store.damage(folder, manifest, hashes=True) is None
        return sum(folder.parent.name != layout.PREPARED for folder in folders)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._mark
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            return False

    def _names(self) -> list[str]:
        return [command_line(process)[:200] for process in self.processes()]

    def _edit(self, name: str, steps: int) -> None:
        path = self.folder / "manifests" / name
        manifest = yaml.safe_load(path.read_text())
        manifest["spec"]["training"]["maxSteps"] = steps
        manifest["spec"]["checkpoints"]["everySteps"] = max(1, steps // 4)
        del manifest["spec"]["evaluation"]["everySteps"]
        path.write_text(yaml.safe_dump(manifest))


def command_line(process: psutil.Process) -> str:
    """The command line of a process; empty when it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def kill_at(pipeline: Pipeline, moment: float) -> bool:
    """Starts a run and kills the command without a warning at a moment; False when it had ended before."""
    pipeline.start()
    end = time.monotonic() + moment
    while time.monotonic() < end and not pipeline.ended:
        time.sleep(0.01)
    if pipeline.ended:
        return False
    pipeline.signal(signal.SIGKILL)
    pipeline.wait(seconds=10)
    return True


def _read(path: Path) -> Json:
    obj: Json = json.loads(path.read_text())
    return obj
