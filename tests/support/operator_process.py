"""The operator as a process of its own, which a test may kill, stop and start again."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml
from support.waiting import wait_for

_START: Final = 120.0
_END: Final = 30.0


class OperatorProcess:
    """``python -m posttrain_operator`` against one API server, with settings as its environment has them.

    It keeps its identity when it is started again, as a pod does: so the Lease is its own at once.
    """

    def __init__(self, folder: Path, server: Mapping[str, object], settings: Mapping[str, str]) -> None:
        self.identity = folder.name
        """Its name in the Lease."""
        self.port = _free_port()
        self.log = folder / "operator.log"
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(yaml.safe_dump(server), "utf-8")
        self._settings = {"POSTTRAIN_PORT": str(self.port), "POSTTRAIN_IDENTITY": self.identity, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Starts it and returns at once."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("POSTTRAIN_", "KUBE"))}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                # The kernel ends it with the thread that started it, so that nothing is left of a test that is killed.
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "posttrain_operator"],
                env={**environment, **self._settings, "KUBECONFIG": str(self._kubeconfig)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1

    def wait_ready(self) -> None:
        """Returns once it has seen the whole cluster."""
        wait_for(self.is_ready, "the operator to be ready", seconds=_START)

    def is_ready(self) -> bool:
        """Whether it says so. Fails when it has ended."""
        assert self.alive, f"the operator has ended: {self.tail()}"
        return self.answer("/readyz") == 200

    def answer(self, path: str) -> int:
        """The status that one of its own pages answers with; 0 when it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def page(self, path: str) -> str:
        """The text of one of its own pages."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def memory_mib(self) -> float:
        """What it holds in memory now, in MiB."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def kill(self) -> None:
        """SIGKILL, now; callable from any thread."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_END)

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM; returns the exit status."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(_END)

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def kubeconfig(url: str, token: str, authority: Path | None = None) -> dict[str, object]:
    """How an API server is reached with a token."""
    cluster = {"server": url, **({"certificate-authority": str(authority)} if authority is not None else {})}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
    }


@contextmanager
def operator_process(folder: Path, server: Mapping[str, object], **settings: str) -> Iterator[OperatorProcess]:
    """A running operator; ``settings`` are those of ``posttrain_operator.settings``, such as ``sweep_interval="5s"``.

    Its log is shown when the test fails: pytest shows what a test printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {f"POSTTRAIN_{name.upper()}": value for name, value in settings.items()}
    process = OperatorProcess(folder, server, environment)
    process.start()
    try:
        process.wait_ready()
        yield process
    except BaseException:
        sys.stderr.write(f"--- the operator's log, {process.log} ---\n{process.tail(200)}\n")
        raise
    finally:
        if process.alive:
            process.kill()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
