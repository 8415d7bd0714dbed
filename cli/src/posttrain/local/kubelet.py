"""The kubelet of a local cluster: pods become processes, with mounts, environment, probes and termination messages."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_operator.cluster import Json

from posttrain.local import http
from posttrain.local.addresses import Addresses
from posttrain.local.mounts import MountError, Mounts

_PROBE_SECONDS: Final = 0.25
_SECRETS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
"""Variables that a pod gets only if its template names them."""
_LONGEST_PAUSE: Final = 30.0


class Kubelet:
    """Runs pods until they end or are stopped. ``changed`` is called whenever a pod's status changed."""

    def __init__(
        self,
        *,
        mounts: Mounts,
        addresses: Addresses,
        log_file: Callable[[Json], Path],
        changed: Callable[[], None],
        lock_descriptor: int,
    ) -> None:
        self._mounts = mounts
        self._addresses = addresses
        self._log_file = log_file
        self._changed = changed
        self._lock_descriptor = lock_descriptor
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._orders: dict[str, bytes] = {}

    def start(self, pod: Json) -> None:
        """Begins to run a pod."""
        uid = pod["metadata"]["uid"]
        self._stops[uid] = asyncio.Event()
        task = self._tasks[uid] = asyncio.create_task(self._run(pod))
        task.add_done_callback(lambda _: self._changed())

    def stop(self, pod: Json) -> None:
        """Asks a pod to end: SIGTERM, and SIGKILL after its grace period. Asking twice changes nothing."""
        uid = pod["metadata"]["uid"]
        if not self._stops[uid].is_set():
            self._stops[uid].set()
            self._order(uid, b"term\n")

    def kill(self) -> None:
        """Ends every pod at once."""
        for uid in self._tasks:
            self._stops[uid].set()
            self._order(uid, b"kill\n")

    def check(self) -> None:
        """Raises what a pod's task raised: a defect of this program, which no pod status could tell."""
        for task in self._tasks.values():
            if task.done():
                task.result()

    async def join(self) -> None:
        """Waits until every pod has ended."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _order(self, uid: str, order: bytes) -> None:
        self._orders[uid] = order
        process = self._processes.get(uid)
        if process is not None and process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(order)

    async def _run(self, pod: Json) -> None:
        """The life of a pod; a pod that must always run is restarted after a growing pause."""
        uid, restarts = pod["metadata"]["uid"], 0
        while True:
            terminated = await self._run_once(pod, restarts)
            restart = pod["spec"]["restartPolicy"] == "Always" and not self._stops[uid].is_set()
            self._set_ended(pod, terminated, restarts, restart=restart)
            if not restart:
                return
            await self._pause(uid, min(2.0**restarts, _LONGEST_PAUSE))
            restarts += 1

    async def _pause(self, uid: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stops[uid].wait()

    async def _run_once(self, pod: Json, restarts: int) -> Json:
        """Runs the container once and returns its ``terminated`` state."""
        uid = pod["metadata"]["uid"]
        if self._stops[uid].is_set():
            return _terminated(int(ExitCode.PREEMPTED_UNSAVED), "")
        ip = self._addresses.of(pod["metadata"]["name"])
        try:
            root = self._mounts.prepare(pod)
            process = await self._spawn(pod, root, ip)
        except MountError as error:
            return _terminated(*_refusal(str(error)))
        except OSError as error:
            message = f"the workspace cannot be used: {error}; free or mend it, or use another --workspace"
            return _terminated(*_refusal(message))
        self._processes[uid] = process
        if uid in self._orders:
            self._order(uid, self._orders[uid])
        self._set_running(pod, ip, restarts)
        probe = asyncio.create_task(self._probe(pod, ip))
        status = await process.wait()
        probe.cancel()
        del self._processes[uid]
        message = (root / layout.TERMINATION_LOG).read_text(encoding="utf-8", errors="replace")
        return _terminated(status if status >= 0 else 128 - status, message)

    async def _spawn(self, pod: Json, root: Path, ip: str) -> asyncio.subprocess.Process:
        container = pod["spec"]["containers"][0]
        scratch = tempfile.mkdtemp(prefix="posttrain-")
        environment = _environment(container["env"], ip=ip, scratch=scratch)
        command = [_located(word, root) for word in (*container["command"], *container["args"])]
        log_file = self._log_file(pod)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        spec = {
            "command": [sys.executable if command[0] == "python" else command[0], *command[1:]],
            "scratch": scratch,
            "log": str(log_file),
            "grace_seconds": pod["spec"]["terminationGracePeriodSeconds"],
        }
        path = root.parent / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "posttrain.local.shim",
            str(path),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=[self._lock_descriptor],
        )

    async def _probe(self, pod: Json, ip: str) -> None:
        """Follows the readiness probe, if the pod has one; a pod without one is ready while it runs."""
        probe = pod["spec"]["containers"][0].get("readinessProbe")
        if probe is None:
            self._set_ready(pod, ready=True)
            return
        url = f"http://{ip}:{layout.TELEMETRY_PORT}{probe['httpGet']['path']}"
        while True:
            self._set_ready(pod, ready=await http.get(url) is not None)
            await asyncio.sleep(_PROBE_SECONDS)

    def _set_running(self, pod: Json, ip: str, restarts: int) -> None:
        last = _container_status(pod).get("lastState", {})
        container = {"state": {"running": {}}, "lastState": last, "restartCount": restarts, "ready": False}
        pod["status"] = {"phase": "Running", "podIP": ip, "containerStatuses": [container]}
        self._changed()

    def _set_ready(self, pod: Json, *, ready: bool) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        if pod["status"].get("conditions") != conditions:
            pod["status"]["conditions"] = conditions
            self._changed()

    def _set_ended(self, pod: Json, terminated: Json, restarts: int, *, restart: bool) -> None:
        if restart:
            waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": terminated}}
            pod["status"] = {"phase": "Running", "containerStatuses": [{**waiting, "restartCount": restarts + 1}]}
        else:
            phase = "Succeeded" if terminated["exitCode"] == 0 else "Failed"
            state = {"state": {"terminated": terminated}, "restartCount": restarts}
            pod["status"] = {"phase": phase, "containerStatuses": [state]}
        shutil.rmtree(self._mounts.folder(pod), ignore_errors=True)
        self._changed()


def _container_status(pod: Json) -> Json:
    statuses = pod["status"].get("containerStatuses") or [{}]
    first: Json = statuses[0]
    return first


def _terminated(code: int, message: str) -> Json:
    return {"exitCode": code, "message": message, "finishedAt": datetime.now(UTC).isoformat()}


def _refusal(message: str) -> tuple[int, str]:
    """The end of a pod whose mounts cannot be made."""
    result = StageResult(outcome="Failed", exit_code=ExitCode.UNWRITABLE, reason="MountFailed", message=message)
    return int(result.exit_code), result.message_bytes().decode()


def _located(word: str, root: Path) -> str:
    """A path below the mount root as it is on this machine; other words stay."""
    prefix = f"{layout.MOUNT_ROOT}/"
    return str(root / word.removeprefix(prefix)) if word.startswith(prefix) else word


def _environment(variables: list[Mapping[str, Any]], *, ip: str, scratch: str) -> dict[str, str]:
    """The environment of this process plus the container's.

    A secret comes from the variable of the same name here, and only for a pod whose template asks for it. Raises
    ``MountError`` when it is not set.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    environment["TMPDIR"] = scratch
    for variable in variables:
        if "value" in variable:
            environment[variable["name"]] = scratch if variable["value"] == "/tmp" else variable["value"]  # noqa: S108
        elif "fieldRef" in variable["valueFrom"]:
            environment[variable["name"]] = ip
        elif variable["name"] in os.environ:
            environment[variable["name"]] = os.environ[variable["name"]]
        else:
            raise MountError(
                f"run.secrets: `posttrain run` takes {variable['name']} from your environment; set it there"
            )
    return environment
