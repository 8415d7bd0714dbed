"""A control plane for tests and benchmarks: etcd, kube-apiserver and kube-controller-manager as processes, no nodes.

``with ControlPlane(folder, find_tools()) as plane`` starts one; ``support.keeper`` starts one for a whole run of
pytest and finds it again. Everything ends with the process that asked for it, however that dies.
"""

import json
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from posttrain_operator.cluster import Ref

from .api import Api, Kubectl
from .operator_process import kubeconfig
from .tools import Tools
from .waiting import wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final = 60.0
"""How long a program may take to become ready, on a busy machine."""

CONTROLLERS: Final = "garbagecollector,namespace,serviceaccount,resourcequota,job,statefulset"
GROUP: Final = "posttrain:operators"
"""The group of the user ``operator``, who may do nothing until a Role is bound to it."""

_PORTS: Final = range(20_000, 32_000)
"""Below what the kernel gives to outgoing connections, so that a port stays free while its API server restarts."""


@dataclass(frozen=True)
class Access:
    """All that a client needs of a running control plane."""

    url: str
    folder: Path
    """Certificates, kubeconfigs, logs and data."""
    programs: Path
    admin_token: str
    """Of a member of system:masters."""
    operator_token: str
    """Of the user ``operator`` in the group ``posttrain:operators``."""
    pids: dict[str, int]
    """Process ids by program, as of the last start."""
    controllers: bool
    """Whether the controller manager runs."""

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "admin.kubeconfig"

    @property
    def operator_kubeconfig(self) -> Path:
        return self.folder / "operator.kubeconfig"

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.programs / "kubectl", self.kubeconfig)

    def api(self, user: Literal["admin", "operator"] = "admin") -> Api:
        """A client, with every right or with those of ``operator``."""
        token = self.admin_token if user == "admin" else self.operator_token
        return Api(self.url, ca_file=self.ca_file, token=token)

    def save(self, path: Path) -> None:
        """Writes it for other processes, all at once."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), default=str))
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        found = json.loads(path.read_text())
        return cls(**{**found, "folder": Path(found["folder"]), "programs": Path(found["programs"])})


class ControlPlane:
    """Starts the programs and applies the CRDs on entry; ends the programs and removes their data on exit.

    The logs stay in the folder. With ``durable`` etcd waits for the disk, as it does in earnest: for benchmarks.
    """

    def __init__(
        self, folder: Path, tools: Tools, *, durable: bool = False, crds: Sequence[Path] | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.tools = tools
        self._durable = durable
        self._crds = [tools.pytorchjob_crd, *sorted((ROOT / "crds").glob("*.yaml"))] if crds is None else list(crds)
        self._port = _free_port()
        self._tokens = {user: secrets.token_hex(16) for user in ("admin", "operator")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # A program dies with the thread that started it (see _start), so this thread must last.
        self._starter = ThreadPoolExecutor(max_workers=1)

    @property
    def access(self) -> Access:
        """What clients need, with the present process ids."""
        return Access(
            url=f"https://127.0.0.1:{self._port}",
            folder=self.folder,
            programs=self.tools.programs,
            admin_token=self._tokens["admin"],
            operator_token=self._tokens["operator"],
            pids={name: process.pid for name, process in self._processes.items()},
            controllers=self.tools.controllers,
        )

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self._start_etcd()
            self.start_api_server()
            self._apply_crds()
            # Not before: it learns of new kinds every 30 seconds only.
            self._start_controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends every program and removes the data; the last ones of the control plane's own."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._starter.shutdown()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def stop_api_server(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the API server: at once, or with SIGTERM in a second or two, when it lets requests and watches end."""
        process = self._processes["kube-apiserver"]
        process.send_signal(number)
        process.wait(SECONDS)

    def start_api_server(self) -> None:
        """Starts the API server, on the same port as before, and waits until it is ready."""
        self._start(
            "kube-apiserver",
            "--etcd-servers=unix://client:0",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--tls-cert-file=server.crt",
            "--tls-private-key-file=server.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=server.key",
            "--service-account-key-file=server.crt",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--token-auth-file=tokens.csv",
            # Without it SIGTERM waits a minute for watches to end by themselves.
            "--shutdown-watch-termination-grace-period=1s",
            # Pods need the ServiceAccount that a controller makes.
            *([] if self.tools.controllers else ["--disable-admission-plugins=ServiceAccount"]),
        )
        with self.access.api() as api:
            self._wait_for("kube-apiserver", api.ready)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_certificates(self.folder)
        groups = {"admin": "system:masters", "operator": GROUP}
        rows = [f'{token},{user},{user},"{groups[user]}"\n' for user, token in self._tokens.items()]
        (self.folder / "tokens.csv").write_text("".join(rows))
        for user, token in self._tokens.items():
            config = kubeconfig(self.access.url, token, self.access.ca_file)
            (self.folder / f"{user}.kubeconfig").write_text(json.dumps(config))

    def _start_etcd(self) -> None:
        # Sockets in its folder, whose names must look like addresses: nobody else's server can be met there.
        client, peer = "unix://client:0", "unix://peer:0"
        self._start(
            "etcd",
            "--data-dir=etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            *([] if self._durable else ["--unsafe-no-fsync"]),
        )

    def _apply_crds(self) -> None:
        with self.access.api() as api:
            refs = []
            for path in self._crds:
                text = path.read_text()
                (name,) = re.findall(r"^  name: (\S+)$", text, re.MULTILINE)
                refs.append(Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name))
                api.apply_text(refs[-1], text)
            for ref in refs:
                self._wait_for("kube-apiserver", partial(_established, api, ref))

    def _start_controllers(self) -> None:
        if not self.tools.controllers:
            return
        self._start(
            "kube-controller-manager",
            "--kubeconfig=admin.kubeconfig",
            f"--controllers={CONTROLLERS}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        )
        with self.access.api() as api:
            self._wait_for("kube-controller-manager", partial(_has_service_account, api, "default"))

    def _start(self, name: str, *arguments: str) -> None:
        # The kernel kills it when the thread that starts it is gone.
        command = ["setpriv", "--pdeathsig", "KILL", str(self.tools.program(name)), *arguments]

        def start() -> subprocess.Popen[bytes]:
            with (self.folder / f"{name}.log").open("ab") as log:
                return subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

        self._processes[name] = self._starter.submit(start).result()

    def _wait_for(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            ended = self._processes[name].poll() is not None
            if ended or time.monotonic() > deadline:
                end = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-5:]
                raise RuntimeError(f"{name} {'ended' if ended else 'is not ready'}: {' | '.join(end)}")
            time.sleep(0.02)


def _has_service_account(api: Api, namespace: str) -> bool:
    """Whether the namespace has the ServiceAccount without which no pod can be created."""
    return api.find(Ref("v1", "ServiceAccount", namespace, "default")) is not None


@contextmanager
def fresh_namespace(access: Access, api: Api) -> Iterator[str]:
    """A namespace in which pods can be created; deleted afterwards, without waiting for its end."""
    name = f"test-{secrets.token_hex(4)}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    if access.controllers:
        wait_for(lambda: _has_service_account(api, name), f"the default ServiceAccount of {name}", seconds=SECONDS)
    try:
        yield name
    finally:
        api.delete(Ref("v1", "Namespace", "", name))


def _established(api: Api, ref: Ref) -> bool:
    conditions = api.get(ref).get("status", {}).get("conditions") or []  # null at first
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


def _make_certificates(folder: Path) -> None:
    """A certificate authority, and with it the API server's pair, which also signs ServiceAccount tokens."""
    common = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    authority = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
    server = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
    ]
    for name, extensions, signer in (("ca", authority, []), ("server", server, ["-CA", "ca.crt", "-CAkey", "ca.key"])):
        command = ["openssl", "req", "-x509", *common, *signer, "-subj", f"/CN={name}"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        command += [part for extension in extensions for part in ("-addext", extension)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _free_port() -> int:
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
