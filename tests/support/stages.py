"""Runs stage programs as the pods do: a real process, a configuration file under a mount root, a termination log."""

import http.client
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain_contract import layout
from posttrain_contract.result import StageResult
from posttrain_contract.stage import FilterStage, FineTuneStage, RLStage, RunFacts, ServeStage, UploadStage
from posttrain_runtime.files import write_atomically

StageConfig = FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage

TIMEOUT = 180


class StageProcess:
    """A running stage program."""

    def __init__(self, process: "subprocess.Popen[bytes]", root: Path, log: Path) -> None:
        self.process = process
        self.root = root
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote to standard output and error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> StageResult:
        """Its result, once it ended; the exit status agrees with the result."""
        try:
            status = self.process.wait(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the stage did not end in {TIMEOUT} s:\n{self.log[-4000:]}") from None
        data = (self.root / layout.TERMINATION_LOG).read_bytes()
        assert data, f"no result (exit status {status}):\n{self.log[-4000:]}"
        result = StageResult.model_validate_json(data)
        assert result.exit_code == status, self.log[-4000:]
        return result


def pod_address() -> str:
    """A loopback address of its own for each pod, so that their ports never collide.

    By the system's chance: training in a test's own process seeds Python's, and two test processes would go on alike.
    """
    chance = random.SystemRandom()
    return "127." + ".".join(str(chance.randint(1, 254)) for _ in range(3))


def phase(address: str) -> str:
    """What the stage says it is doing; empty when nobody answers."""
    try:
        return str(json.loads(page(address, "/progress")).get("phase", ""))
    except OSError:
        return ""


def page(address: str, path: str) -> str:
    """What the endpoint of a stage answers. Raises ``OSError`` when nobody does."""
    connection = http.client.HTTPConnection(address, layout.TELEMETRY_PORT, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def run_facts(kind: str, *, inputs: Mapping[str, Any] | None = None, attempt: int = 1) -> RunFacts:
    """Facts of a run named ``test``; inputs are resolved inputs by name."""
    return RunFacts(
        kind=kind,
        namespace="test",
        name="test",
        attempt=attempt,
        folder=f"store/test/{kind.lower()}/test-0",
        uri=f"pvc://store/test/{kind.lower()}/test-0",
        inputs=dict(inputs or {}),
    )


def start_stage_process(
    config: StageConfig, root: Path, *, env: Mapping[str, str] | None = None, pod: str = ""
) -> StageProcess:
    """Starts a stage program on a configuration whose paths are relative to ``root``.

    Several pods that share a store are several calls with the same ``root`` and different ``pod`` names: each then
    gets a mount root of its own, where everything but the configuration is a link to ``root``.
    """
    mount = _pod_root(root, pod) if pod else root
    (mount / "config").mkdir(parents=True, exist_ok=True)
    (root / "store").mkdir(exist_ok=True)
    path = mount / layout.CONFIG_FILE
    write_atomically(path, config.model_dump_json(by_alias=True).encode())
    (mount / layout.TERMINATION_LOG).write_bytes(b"")
    log = mount / "log.txt"
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "POD_IP": pod_address()}
    environment = {**os.environ, **quiet, **(env or {})}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"posttrain_{config.stage}", "--config", str(path)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    return StageProcess(process, mount, log)


def run_stage_process(
    config: StageConfig, root: Path, *, env: Mapping[str, str] | None = None, pod: str = ""
) -> StageResult:
    """Runs a stage program to its end."""
    return start_stage_process(config, root, env=env, pod=pod).wait()


def _pod_root(root: Path, pod: str) -> Path:
    mount = root / "pods" / pod
    mount.mkdir(parents=True, exist_ok=True)
    (root / "store").mkdir(exist_ok=True)
    for name in ("store", "inputs"):
        if (root / name).exists() and not (mount / name).exists():
            (mount / name).symlink_to(root / name)
    return mount
