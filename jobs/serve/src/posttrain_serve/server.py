"""The life of one vLLM server: checks, start, ready, stop."""

import ctypes
import errno
import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import IO

from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import ServeStage
from posttrain_runtime import keys, logs
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.telemetry import pod_ip, port_taken

from posttrain_serve.command import command, environment

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 20.0
_DRAIN_SECONDS = 2.0
_KEPT_LINES = 15


def serve(context: StageContext[ServeStage]) -> Finished:
    """Serves until the stage is asked to stop, which is its normal end.

    Raises ``StageError`` (PORT_TAKEN, USAGE, SERVER_LOST) when the server cannot start or ends by itself.
    """
    host = pod_ip()
    if context.config.run.gpus == 0:
        check_libnuma()
    check_port(host, layout.SERVER_PORT)
    key = keys.server_key(context.folder)
    context.progress.update("starting server")
    process = subprocess.Popen(  # noqa: S603 - our own command line
        command(context.config, model=context.input_path("model"), host=host),
        env=environment(context.config, inherited=os.environ, host=host, key=key),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    echo = threading.Thread(target=_echo, args=(process.stdout, lines), daemon=True)
    echo.start()
    try:
        _watch(context, process, host=host, key=key)
    finally:
        _end(process)
        # Workers that outlive a killed server hold the pipe; they end with the pod, whose first process this is.
        echo.join(timeout=_DRAIN_SECONDS)
    if not context.stop.is_set():
        raise StageError(
            ExitCode.SERVER_LOST,
            "ServerDied",
            f"spec.rollout: the vLLM server ended with status {process.returncode}; look into its log, and raise "
            "run.resources.memory or lower rollout.cacheMemoryMi when its memory ran out; its last lines: "
            + " | ".join(lines),
        )
    return Finished()


def _watch(context: StageContext[ServeStage], process: "subprocess.Popen[bytes]", *, host: str, key: str) -> None:
    """Returns when the server ended or the stage shall stop; sets ``ready`` as soon as the server answers."""
    while process.poll() is None and not context.stop.wait(_POLL_SECONDS):
        if not context.ready.is_set() and is_healthy(host, layout.SERVER_PORT, key=key):
            context.ready.set()
            context.progress.update("serving")


def is_healthy(host: str, port: int, *, key: str) -> bool:
    """Whether a vLLM server answers that it is well."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/health", headers={keys.HEADER: keys.authorization(key)})
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("the server did not end in %.0f s and is killed", _GRACE_SECONDS)
        process.kill()
        process.wait()


def _echo(pipe: IO[bytes], lines: "deque[str]") -> None:
    """Passes the server's output on, without secrets, and keeps its last lines."""
    for raw in pipe:
        line = logs.redact(raw.decode(errors="replace").rstrip())
        if line:
            lines.append(line)
            sys.stderr.write(line + "\n")


def check_libnuma() -> None:
    """Raises ``StageError`` (USAGE) where vLLM's CPU engine would die for want of a system library."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as error:
        raise StageError(
            ExitCode.USAGE,
            "LibraryMissing",
            "vLLM on CPU needs libnuma.so.1; install it (Debian and Ubuntu: apt-get install libnuma1)",
        ) from error


def check_port(host: str, port: int) -> None:
    """Raises ``StageError`` (PORT_TAKEN) when another program listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise port_taken(host, port, what="the vLLM server") from error
