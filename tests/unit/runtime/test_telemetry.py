"""What a running stage tells of itself: its progress, its endpoint, its logs."""

import json
import logging
import math
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.progress import Progress
from posttrain_runtime import logs
from posttrain_runtime.errors import StageError
from posttrain_runtime.progress import ProgressReporter, read_progress
from posttrain_runtime.telemetry import Telemetry
from support.stages import pod_address

CANARY = "hf_canary_0123456789"
PROGRESS = Progress(
    phase="training", step=3, total_steps=10, eta_seconds=7.0, metrics={"loss": 0.5, "reward": 1.0}, updated_at=1000.0
)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    """A loopback address of this test alone, given as the pod's."""
    host = pod_address()
    monkeypatch.setenv("POD_IP", host)
    return host


@pytest.fixture
def reporter(tmp_path: Path) -> ProgressReporter:
    """A reporter."""
    return ProgressReporter(tmp_path / "progress.json", history=tmp_path / layout.METRICS)


def fetch(host: str, path: str) -> tuple[int, str]:
    """Status and body of a request."""
    try:
        with urllib.request.urlopen(f"http://{host}:{layout.TELEMETRY_PORT}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def serving(address: str) -> Iterator[str]:
    """A stage that is in the middle of training and ready."""
    telemetry = Telemetry(progress=lambda: PROGRESS, ready=lambda: True)
    yield address
    telemetry.close()


def test_progress_is_served_as_json(serving: str) -> None:
    status, body = fetch(serving, "/progress")
    assert status == 200
    assert Progress.parse(json.loads(body)) == PROGRESS


def test_metrics_are_served_for_prometheus(serving: str) -> None:
    lines = fetch(serving, "/metrics")[1].splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples == {
        "posttrain_step": "3.0",
        "posttrain_steps": "10.0",
        "posttrain_eta_seconds": "7.0",
        "posttrain_progress_updated_seconds": "1000.0",
        'posttrain_figure{name="loss"}': "0.5",
        'posttrain_figure{name="reward"}': "1.0",
    }


def test_other_paths_are_not_found(serving: str) -> None:
    assert fetch(serving, "/")[0] == 404
    assert fetch(serving, "/healthz") == (200, "ok\n")
    assert fetch(serving, "/readyz") == (200, "ok\n")


def test_before_the_first_report_and_before_it_is_ready_a_stage_answers_too(address: str) -> None:
    telemetry = Telemetry(progress=lambda: None, ready=lambda: False)
    try:
        assert fetch(address, "/progress") == (200, "{}")
        assert fetch(address, "/metrics")[0] == 200
        assert fetch(address, "/readyz") == (503, "not ready\n")
    finally:
        telemetry.close()


def test_a_port_that_is_taken_is_named(address: str) -> None:
    with socket.create_server((address, layout.TELEMETRY_PORT)), pytest.raises(StageError) as caught:
        Telemetry(progress=lambda: None, ready=lambda: False)
    assert (caught.value.code, caught.value.reason) == (ExitCode.PORT_TAKEN, "PortTaken")
    assert f"port {layout.TELEMETRY_PORT} on {address}, needed for telemetry" in caught.value.message
    assert "no field chooses this port: end that program" in caught.value.message


def test_the_port_is_free_after_closing(address: str) -> None:
    for _ in range(2):
        Telemetry(progress=lambda: None, ready=lambda: False).close()
    assert address


def test_a_new_phase_and_the_last_step_are_written_at_once(reporter: ProgressReporter, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert read_progress(path) is None
    reporter.update("loading")
    assert (shown := read_progress(path)) is not None
    assert (shown.phase, shown.step, shown.total_steps, shown.percent) == ("loading", 0, None, None)
    reporter.update("training", total=4)
    reporter.update("training", step=4, total=4, metrics={"loss": 0.5})
    assert (shown := read_progress(path)) is not None
    assert (shown.percent, shown.metrics, shown.eta_seconds) == (100.0, {"loss": 0.5}, 0.0)


def test_figures_that_are_no_numbers_are_left_out(reporter: ProgressReporter, tmp_path: Path) -> None:
    reporter.update("training", metrics={"loss": math.nan, "rate": math.inf, "reward": 1})
    assert (shown := read_progress(tmp_path / "progress.json")) is not None
    assert shown.metrics == {"reward": 1.0}


def test_a_resumed_phase_has_no_past_the_end_eta(reporter: ProgressReporter, tmp_path: Path) -> None:
    reporter.update("training", step=12, total=10)
    assert (shown := read_progress(tmp_path / "progress.json")) is not None
    assert shown.percent == 100.0


def test_the_history_has_one_line_for_each_record(reporter: ProgressReporter, tmp_path: Path) -> None:
    reporter.record(1, {"loss": 2.0})
    reporter.record(2, {"loss": 1.0, "bad": math.nan})
    lines = [json.loads(line) for line in (tmp_path / layout.METRICS).read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["metrics"]) for line in lines] == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert time.time() - 60 < lines[0]["time"] <= lines[1]["time"] <= time.time() + 1


def test_a_torn_progress_file_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text('{"phase": "tr', encoding="utf-8")
    assert read_progress(tmp_path / "progress.json") is None


@pytest.fixture
def plain_logging() -> Iterator[None]:
    """Puts the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def failing_log(secret: str) -> None:
    """Logs a secret as an argument and in an exception."""
    log = logging.getLogger("test")
    try:
        raise ValueError(f"bad token {secret}")
    except ValueError:
        log.exception("refused with %s\nand a second line", secret)


@pytest.mark.usefixtures("plain_logging")
@pytest.mark.parametrize("in_pod", [True, False])
def test_a_secret_never_appears(
    in_pod: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    if not in_pod:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    logs.configure(run="ns/RLJob/x", attempt=1)
    failing_log(CANARY)
    written = capsys.readouterr().err
    assert CANARY not in written
    assert "refused with [redacted]" in written
    assert "ValueError: bad token [redacted]" in written


@pytest.mark.usefixtures("plain_logging")
def test_in_a_pod_every_record_is_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    logs.configure(run="ns/RLJob/x", attempt=3)
    failing_log("a secret of nobody")
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert {name: fields[name] for name in ("run", "attempt", "level", "logger")} == {
        "run": "ns/RLJob/x",
        "attempt": 3,
        "level": "ERROR",
        "logger": "test",
    }
    assert fields["message"] == "refused with a secret of nobody\nand a second line"


@pytest.mark.parametrize("secret", [f'quote"{CANARY}', "back\\slash-secret", "täglich-geheim"])
def test_a_secret_is_found_in_json_too(
    secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plain_logging: None
) -> None:
    del plain_logging
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    logs.configure(run="ns/RLJob/x", attempt=3)
    failing_log(secret)
    fields = json.loads(capsys.readouterr().err)
    assert secret not in fields["message"]
    assert secret not in fields["exception"]


def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert logs.redact("a false alarm") == "a false alarm"
