"""The endpoint that every stage serves: /progress (JSON), /metrics (Prometheus), /healthz and /readyz."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import Progress
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from posttrain_runtime.errors import StageError

_CLOSING_SECONDS: Final = 0.1
"""How long the server may take to notice that it shall stop."""
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


def pod_ip() -> str:
    """The address to listen on: the pod's own, from the downward API; loopback where there is no pod."""
    return os.environ.get("POD_IP", "127.0.0.1")


class Telemetry:
    """Serves progress and readiness from a daemon thread until ``close``."""

    def __init__(self, *, progress: Callable[[], Progress | None], ready: Callable[[], bool]) -> None:
        self._progress = progress
        self._ready = ready
        self._registry = CollectorRegistry()
        self._registry.register(_ProgressCollector(progress))
        self._server = _listen(self._handler())
        threading.Thread(
            target=self._server.serve_forever, args=(_CLOSING_SECONDS,), name="telemetry", daemon=True
        ).start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        match path:
            case "/progress":
                snapshot = self._progress()
                body = snapshot.model_dump_json(by_alias=True).encode() if snapshot else b"{}"
                return 200, "application/json", body
            case "/metrics":
                return 200, _PROMETHEUS, generate_latest(self._registry)
            case "/healthz":
                return 200, "text/plain", b"ok\n"
            case "/readyz":
                return (200, "text/plain", b"ok\n") if self._ready() else (503, "text/plain", b"not ready\n")
            case _:
                return 404, "text/plain", b"not found\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        telemetry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, content_type, body = telemetry.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Requests are not logged: a probe every few seconds would drown the stage's own lines."""

        return Handler


class _ProgressCollector(Collector):
    def __init__(self, progress: Callable[[], Progress | None]) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        snapshot = self._progress()
        if snapshot is None:
            return
        yield GaugeMetricFamily("posttrain_step", "Units done in the present phase.", value=snapshot.step)
        yield GaugeMetricFamily(
            "posttrain_progress_updated_seconds", "Unix time of the last progress.", value=snapshot.updated_at
        )
        if snapshot.total_steps is not None:
            yield GaugeMetricFamily("posttrain_steps", "Units in all in the present phase.", value=snapshot.total_steps)
        if snapshot.eta_seconds is not None:
            yield GaugeMetricFamily("posttrain_eta_seconds", "Seconds that are left.", value=snapshot.eta_seconds)
        figures = GaugeMetricFamily("posttrain_figure", "Newest figures of the stage.", labels=["name"])
        for name, value in snapshot.metrics.items():
            figures.add_metric([name], value)
        yield figures


def _listen(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    address = (pod_ip(), layout.TELEMETRY_PORT)
    try:
        return ThreadingHTTPServer(address, handler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise port_taken(*address, what="telemetry") from error


def port_taken(host: str, port: int, *, what: str) -> StageError:
    """The error for a port that another program holds."""
    return StageError(
        ExitCode.PORT_TAKEN,
        "PortTaken",
        f"port {port} on {host}, needed for {what}, is in use by another program; no field chooses this port: "
        f"end that program (ss -ltnp 'sport = :{port}' names it) and run again",
    )
