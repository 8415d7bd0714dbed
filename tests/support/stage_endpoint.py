"""A stage's endpoint without a stage: answers at /progress on an address of loopback that no other test has."""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from posttrain_contract import layout
from posttrain_contract.progress import Progress


class StageEndpoint:
    """What a pod with this address says; ``progress`` may be replaced at any time."""

    def __init__(self, ip: str, progress: Progress) -> None:
        self.ip = ip
        self.progress = progress
        self.asked = 0
        """How often somebody wanted to know."""

    def answer(self) -> bytes:
        self.asked += 1
        return json.dumps(self.progress.dump()).encode()


@contextmanager
def stage_endpoint(progress: Progress) -> Iterator[StageEndpoint]:
    """An endpoint that answers until the end of the context."""
    endpoint = StageEndpoint(f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}.1", progress)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = endpoint.answer() if self.path == "/progress" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer((endpoint.ip, layout.TELEMETRY_PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
