"""Logging of stages: readable lines on a laptop, JSON lines in a pod; secrets appear in neither."""

import json
import logging
import os
import re
import sys
import time

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)
_MIN_SECRET_LENGTH = 6


_taken: set[str] = set()


def take_secret(name: str) -> str | None:
    """Takes a secret out of the environment, so that no process that is started later has it."""
    value = os.environ.pop(name, None)
    if value:
        _taken.add(value)
    return value


def secrets() -> list[str]:
    """Values that this process's environment has or had and that must never be shown, longest first."""
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)} | _taken
    return sorted((value for value in values if len(value) >= _MIN_SECRET_LENGTH), key=len, reverse=True)


def redact(text: str) -> str:
    """The text without the values of secrets."""
    for secret in secrets():
        text = text.replace(secret, "[redacted]")
    return text


class _Formatter(logging.Formatter):
    def __init__(self, *, run: str, attempt: int, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        self.converter = time.gmtime
        self._facts = {"run": run, "attempt": attempt}
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        if not self._as_json:
            return redact(super().format(record))
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **self._facts,
        }
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info))
        # Redacted before: in JSON a secret with a quote or a backslash looks different.
        return json.dumps(fields, ensure_ascii=False)


def configure(*, run: str, attempt: int) -> None:
    """Sends the root logger to standard error; JSON when Kubernetes is around, readable otherwise."""
    handler = logging.StreamHandler(sys.stderr)
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    handler.setFormatter(_Formatter(run=run, attempt=attempt, as_json=in_pod))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
