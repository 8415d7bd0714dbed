"""Logs: one JSON object a line, which says what it is about and keeps secrets to itself."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiohttp import web
from posttrain_operator import controller, handlers, logs
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.handlers import operate
from posttrain_operator.labels import API_VERSION
from posttrain_operator.logs import JsonFormatter, about
from posttrain_operator.settings import Settings
from support.operator_process import kubeconfig
from support.scripted_server import reset, serving

REF = Ref(API_VERSION, "FilterJob", "team", "x")
RAW: Json = {"metadata": {"generation": 3}, "status": {"attempts": [{"number": 1}, {"number": 2}]}}
log = logging.getLogger("test.logs")


class Lines(io.StringIO):
    """What was logged."""

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def one(self) -> dict[str, Any]:
        (line,) = self.all()
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    stream = Lines()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield stream
    log.removeHandler(handler)


def test_a_line_has_time_level_logger_and_message(lines: Lines) -> None:
    log.warning("%s of %d", "one", 2)
    line = lines.one()
    assert (line["level"], line["logger"], line["message"]) == ("warning", "test.logs", "one of 2")
    assert line["time"].endswith("+00:00")
    assert set(line) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("message", ["two\nlines", '"quoted"', "日本語", "\x00\x1b[31m", "\u2028"])
def test_whatever_the_message_it_is_one_line(lines: Lines, message: str) -> None:
    log.info("%s", message)
    assert lines.one()["message"] == message
    assert len(lines.getvalue().splitlines()) == 1


def test_half_a_surrogate_pair_is_written_all_the_same() -> None:
    record = logging.LogRecord("test", logging.INFO, __file__, 1, "\ud800", None, None)
    JsonFormatter().format(record).encode()


def test_a_line_says_what_it_is_about(lines: Lines) -> None:
    with about(REF, RAW):
        log.info("inside")
    log.info("outside")
    inside, outside = lines.all()
    facts = {"kind": "FilterJob", "namespace": "team", "name": "x", "generation": 3, "attempt": 2}
    assert facts.items() <= inside.items()
    assert not facts.keys() & outside.keys()


def test_an_error_inside_ends_what_it_is_about(lines: Lines) -> None:
    with pytest.raises(OSError, match="no"), about(REF, RAW):
        raise OSError("no")
    log.info("outside")
    assert "kind" not in lines.one()


def test_passes_side_by_side_are_told_apart(lines: Lines) -> None:
    async def one_pass(name: str) -> None:
        with about(Ref(API_VERSION, "FilterJob", "team", name), None):
            for _ in range(3):
                await asyncio.sleep(0)
                log.info("%s", name)

    async def run() -> None:
        await asyncio.gather(*(one_pass(name) for name in "abc"))

    asyncio.run(run())
    assert len(lines.all()) == 9
    assert all(line["name"] == line["message"] for line in lines.all())


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {"metadata": {}},
        {"metadata": {}, "status": None},
        {"metadata": {}, "status": "text"},
        {"metadata": {}, "status": {"attempts": "text"}},
        {"metadata": {"generation": object()}, "status": {"attempts": [None, 7]}},
    ],
)
def test_a_garbled_object_is_logged_of_too(lines: Lines, raw: Json | None) -> None:
    with about(REF, raw):
        log.info("hello")
    assert lines.one()["name"] == "x"


def test_an_exception_is_told_whole_in_one_line(lines: Lines) -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        log.exception("a pass failed")
    line = lines.one()
    assert line["level"] == "error"
    assert line["error"].startswith("Traceback")
    assert line["error"].endswith("KeyError: 'missing'")


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What ``set_up`` leads to standard error; afterwards everything is as it was."""
    stream, root = Lines(), logging.getLogger()
    before, handlers = root.level, root.handlers[:]
    root.handlers = []  # or they are closed
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stderr=stream))
    yield stream
    root.handlers = handlers
    root.setLevel(before)
    for name in logs._QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize(("level", "shown"), [("debug", "dive"), ("info", "ive"), ("warning", "ve"), ("error", "e")])
def test_from_the_level_on_everything_is_shown(level: str, shown: str, stderr: Lines) -> None:
    logs.set_up(level)
    for message, number in (("d", logging.DEBUG), ("i", logging.INFO), ("v", logging.WARNING), ("e", logging.ERROR)):
        logging.getLogger("test.others").log(number, "%s", message)
    assert "".join(line["message"] for line in stderr.all()) == shown


def test_of_every_event_and_request_nothing_is_shown(stderr: Lines) -> None:
    logs.set_up("debug")
    for name in logs._QUIET:
        logging.getLogger(name).info("as usual")
        logging.getLogger(name).warning("trouble")
    assert {line["message"] for line in stderr.all()} == {"trouble"}


# Secrets.

TOKEN, ELSEWHERE = "token-5f3c9a1e7b", "hf-9d2b8c4a6e"


def test_no_secret_of_the_environment_or_of_the_kubeconfig_is_logged(
    tmp_path: Path, stderr: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debug logs of an operator that meets every kind of trouble with its API server."""
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("HF_TOKEN", ELSEWHERE)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(controller, "_RETRY", 0.01)
    monkeypatch.setattr(handlers, "_LOGIN_PAUSE", 0.01)
    answers: list[int] = []

    async def trouble(request: web.BaseRequest) -> web.StreamResponse:
        if request.path in ("/api", "/apis"):
            return web.json_response({"message": "kopf finds nothing out"}, status=500)
        echo = f"you said {request.headers['Authorization']}"
        answers.append(len(answers) % 6)
        match answers[-1]:
            case 0:
                return await reset(request)
            case 1:
                return web.Response(text=echo)
            case number:
                body = {"kind": "Status", "metadata": {}, "message": echo, "reason": "Because"}
                return web.json_response(body, status=(401, 403, 404, 500)[number - 2])

    async def run() -> None:
        async with serving(trouble) as url:
            file.write_text(yaml.safe_dump(kubeconfig(url, TOKEN)), "utf-8")
            task = asyncio.get_running_loop().create_task(operate(Settings(port=0)))
            async with asyncio.timeout(60):
                while len(answers) < 60 and not task.done():  # noqa: ASYNC110 - the server tells nobody
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    logs.set_up("debug")
    asyncio.run(run())
    told = stderr.getvalue()
    assert "500" in told, "the trouble itself is told"
    assert len(answers) >= 60, told[-3000:]
    for secret in (TOKEN, ELSEWHERE):
        assert secret not in told
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in told
    assert {"debug", "warning"} <= {line["level"] for line in stderr.all()}
