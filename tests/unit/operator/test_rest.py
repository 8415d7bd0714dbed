"""Requests to the API server: what goes out, and what each answer means."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import yaml
from aiohttp import web
from kubernetes.aio import client as kubernetes
from posttrain_operator import metrics, rest
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.rest import CONNECTIONS, NoClusterError, RefusedError, Rest, load_configuration, unexpected
from posttrain_operator.watched import APIS
from support.scripted_server import Handler, half, reset, serving

T = TypeVar("T")
SECRET = "secret-0123456789"
OBJECT = {"kind": "Job", "metadata": {"name": "x", "resourceVersion": "7"}, "message": "hello"}
JOB = APIS["batch/v1", "Job"]


def configuration(url: str, token: str = SECRET) -> Any:
    config = kubernetes.Configuration(host=url)
    config.api_key = {"BearerToken": f"Bearer {token}"} if token else {}
    return config


def asked(handler: Handler, work: Callable[[Rest], Coroutine[Any, Any, T]], **options: Any) -> T:
    """What a client is told by a server."""

    async def ask() -> T:
        async with serving(handler) as url:
            client = Rest(configuration(url), **options)
            try:
                return await work(client)
            finally:
                await client.close()

    return asyncio.run(ask())


def answering(status: int, body: Any = None, text: str = "", headers: dict[str, str] | None = None) -> Handler:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text=json.dumps(body) if body is not None else text, headers=headers)

    return answer


def each_code(text: str, codes: Sequence[int], headers: dict[str, str] | None = None) -> list[Exception]:
    """What the same text means with each status."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        told = text.replace("TOKEN", request.headers["Authorization"])
        return web.Response(status=int(request.query["code"]), text=told, headers=headers)

    async def ask(client: Rest) -> list[Exception]:
        errors: list[Exception] = []
        for code in codes:
            with pytest.raises((ApiUnavailable, RefusedError)) as error:
                await client.get(f"/x?code={code}")
            errors.append(error.value)
        return errors

    return asked(answer, ask)


def refusal(code: int, reason: str = "Because", message: str = "it must not be") -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": code, "reason": reason, "message": message}


TRIES = 3


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_PAUSES", (0, 0))


async def get(client: Rest) -> Any:
    return await client.get("/api/v1/namespaces/team/pods/x?limit=5")


# What goes out.


@pytest.mark.parametrize(
    ("call", "method", "content", "body"),
    [
        (lambda client: client.get("/x"), "GET", None, None),
        (lambda client: client.post("/x", {"a": 1}), "POST", "application/json", {"a": 1}),
        (lambda client: client.patch("/x", {"a": None}), "PATCH", "application/merge-patch+json", {"a": None}),
        (lambda client: client.put("/x", {"a": 1}), "PUT", "application/json", {"a": 1}),
        (
            lambda client: client.delete("/x", uid="7"),
            "DELETE",
            "application/json",
            {"propagationPolicy": "Background", "preconditions": {"uid": "7"}},
        ),
    ],
)
def test_each_verb_asks_for_json_with_credentials(call: Any, method: str, content: str | None, body: Any) -> None:
    seen: list[tuple[str, str, Any, Any, Any]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        told = await request.read()
        headers = request.headers
        seen.append((request.method, request.path, headers["Authorization"], headers["Accept"].split(";")[0], told))
        if content is not None:
            assert headers["Content-Type"] == content
        return web.json_response(OBJECT)

    asked(handler, call)
    ((verb, path, authorization, accepted, told),) = seen
    assert (verb, path, authorization, accepted) == (method, "/x", f"Bearer {SECRET}", "application/json")
    assert (json.loads(told) if told else None) == body


def test_a_read_returns_the_object_and_a_write_its_metadata() -> None:
    assert asked(answering(200, OBJECT), lambda client: client.get("/x")) == OBJECT
    for call in (lambda client: client.post("/x", {}), lambda client: client.patch("/x", {})):
        assert asked(answering(201, OBJECT), call) == OBJECT["metadata"]


def test_without_a_token_none_is_sent() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert "Authorization" not in request.headers
        return web.json_response(OBJECT)

    async def ask() -> None:
        async with serving(handler) as url:
            client = Rest(configuration(url, token=""))
            await client.get("/x")
            await client.close()

    asyncio.run(ask())


def test_a_token_is_renewed_between_requests() -> None:
    tokens: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        tokens.append(request.headers["Authorization"])
        return web.json_response(OBJECT)

    async def work(client: Rest) -> None:
        def renew(config: Any) -> None:
            config.api_key["BearerToken"] = f"Bearer {len(tokens)}"

        client.configuration.refresh_api_key_hook = renew
        for _ in range(3):
            await client.get("/x")

    asked(handler, work)
    assert tokens == ["Bearer 0", "Bearer 1", "Bearer 2"]


def test_no_more_requests_are_under_way_than_there_are_connections() -> None:
    under_way = most = 0
    free = asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == CONNECTIONS:
            free.set()
        await free.wait()
        under_way -= 1
        return web.json_response(OBJECT)

    async def work(client: Rest) -> None:
        await asyncio.gather(*(client.get("/x") for _ in range(100)))

    asked(handler, work)
    assert most == CONNECTIONS


# The right to write.


def test_the_right_to_write_is_asked_for_right_before_each_write_and_for_no_read() -> None:
    order: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        order.append(request.method)
        return web.json_response(OBJECT)

    async def work(client: Rest) -> None:
        client.configuration.refresh_api_key_hook = lambda _: order.append("credentials")
        await client.get("/x")
        await client.post("/x", {})
        await client.patch("/x", {})
        await client.put("/x", {})
        await client.delete("/x", uid="7")

    asked(handler, work, may_write=lambda: order.append("may I"))
    steps = ("credentials", "may I", "may I")
    writes = [step for verb in ("POST", "PATCH", "PUT", "DELETE") for step in (*steps, verb)]
    assert order == ["credentials", "GET", *writes]


def test_who_may_not_write_sends_nothing_and_may_read() -> None:
    methods: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        methods.append(request.method)
        return web.json_response(OBJECT)

    def may_write() -> None:
        raise ApiUnavailable("not now")

    async def work(client: Rest) -> None:
        for write in (client.post("/x", {}), client.patch("/x", {}), client.put("/x", {}), client.delete("/x", uid="")):
            with pytest.raises(ApiUnavailable, match="not now"):
                await write
        await client.get("/x")

    asked(handler, work, may_write=may_write)
    assert methods == ["GET"]


@pytest.mark.parametrize("write", [lambda client: client.post("/x", {}), lambda client: client.delete("/x", uid="7")])
def test_whoever_loses_the_right_on_the_way_to_the_api_server_sends_nothing(
    write: Callable[[Rest], Coroutine[Any, Any, Any]],
) -> None:
    methods: list[str] = []
    asked_times = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        methods.append(request.method)
        return web.json_response(OBJECT)

    def may_write() -> None:
        nonlocal asked_times
        asked_times += 1
        if asked_times > 1:
            raise ApiUnavailable("no longer")

    with pytest.raises(ApiUnavailable, match="no longer"):
        asked(handler, write, may_write=may_write)
    assert methods == []


# What an answer means.


@pytest.mark.parametrize("code", [400, 403, 404, 405, 409, 410, 413, 422])
def test_what_the_api_server_will_not_do_is_refused(code: int) -> None:
    with pytest.raises(RefusedError) as refused:
        asked(answering(code, refusal(code)), get)
    assert (refused.value.code, refused.value.reason) == (code, "Because")
    assert str(refused.value) == refused.value.message == "it must not be"


@pytest.mark.parametrize("code", [401, 408, 429, 500, 501, 502, 503, 504, 507, 520, 599])
def test_what_may_pass_is_another_try(code: int) -> None:
    with pytest.raises(ApiUnavailable) as unavailable:
        asked(answering(code, refusal(code)), get)
    assert str(unavailable.value) == f"GET /api/v1/namespaces/team/pods/x: {code}: it must not be"
    assert unavailable.value.retry_after is None


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("999999999999999999999", 300),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_how_long_to_wait_is_passed_on(told: str, seconds: int | None) -> None:
    for error in each_code(json.dumps(refusal(0)), (429, 503), headers={"Retry-After": told}):
        assert isinstance(error, ApiUnavailable)
        assert error.retry_after == (timedelta(seconds=seconds) if seconds is not None else None)


@pytest.mark.parametrize("text", ["", "<html>hello</html>", "[]", "null", '"x"', "7", "{}", '{"a": 1}', "{", "\x00"])
def test_a_success_that_is_no_object_is_none(text: str) -> None:
    assert {type(error) for error in each_code(text, (200, 201))} == {ApiUnavailable}


@pytest.mark.parametrize("text", ["", "<html>no such page</html>", "default backend - 404", "{}", "[]", "null"])
def test_a_proxy_cannot_refuse(text: str) -> None:
    assert {type(error) for error in each_code(text, (400, 403, 404, 409, 410, 422))} == {ApiUnavailable}


def test_a_group_that_the_api_server_does_not_know_is_not_found() -> None:
    with pytest.raises(RefusedError) as refused:
        asked(answering(404, text="404 page not found\n"), get)
    assert refused.value.code == 404


@pytest.mark.parametrize("handler", [reset, half])
def test_a_broken_connection_is_another_try(handler: Handler) -> None:
    with pytest.raises(ApiUnavailable, match="GET /api/v1/namespaces/team/pods/x: "):
        asked(handler, get)


def test_a_server_that_is_not_there_is_another_try() -> None:
    async def ask() -> None:
        async with serving(reset) as url:
            client = Rest(configuration(url))
        try:
            await client.get("/x")
        finally:
            await client.close()

    with pytest.raises(ApiUnavailable, match="GET /x: ClientConnectorError"):
        asyncio.run(ask())


def test_a_server_that_does_not_answer_is_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_LIMIT", aiohttp.ClientTimeout(total=0.2))

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    with pytest.raises(ApiUnavailable, match="TimeoutError"):
        asked(handler, get)


def test_a_server_that_answers_without_end_is_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_LIMIT", aiohttp.ClientTimeout(total=0.2))

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    with pytest.raises(ApiUnavailable, match="TimeoutError"):
        asked(handler, get)


def test_every_request_has_a_limit() -> None:
    assert rest._LIMIT.total == rest.TIMEOUT


def test_credentials_that_cannot_be_renewed_are_another_try() -> None:
    async def work(client: Rest) -> None:
        def renew(_: Any) -> None:
            raise OSError("no token file")

        client.configuration.refresh_api_key_hook = renew
        await client.get("/x")

    with pytest.raises(ApiUnavailable, match="no token file"):
        asked(answering(200, OBJECT), work)


def test_a_refusal_that_nobody_expects_says_what_it_was() -> None:
    error = unexpected(RefusedError(403, "Forbidden", "pods is forbidden"))
    assert str(error) == "403 Forbidden: pods is forbidden"


# Secrets.


@pytest.mark.parametrize("text", ["TOKEN", '{"kind": "Status", "message": "you said TOKEN"}', '["TOKEN"]'])
def test_a_token_is_in_no_error_even_where_the_answer_repeats_it(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    errors = each_code(text, (200, 401, 403, 404, 429, 500))
    assert not any(SECRET in str(error) for error in errors)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("handler", [reset, half])
def test_a_token_is_in_no_error_of_a_connection(handler: Handler) -> None:
    with pytest.raises(ApiUnavailable) as error:
        asked(handler, get)
    assert SECRET not in f"{error.value!r} {error.value.__cause__!r}"


# Lists.


def pages(client: Rest, **options: Any) -> Coroutine[Any, Any, list[list[str]]]:
    async def read() -> list[list[str]]:
        return [
            [f"{page.version}", *(item["metadata"]["name"] for item in page.items)]
            async for page in client.pages(JOB, **options)
        ]

    return read()


def page(version: int, names: str, token: str = "") -> dict[str, Any]:
    items = [{"metadata": {"name": name}} for name in names]
    return {"metadata": {"resourceVersion": str(version), "continue": token}, "items": items}


def test_a_list_is_read_page_by_page() -> None:
    asked_for: list[dict[str, str]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked_for.append(dict(request.query))
        return web.json_response(page(5, "ab", "more&more=") if len(asked_for) == 1 else page(5, "c"))

    read = asked(handler, lambda client: pages(client, selector="a=b,c=d"))
    assert read == [["5", "a", "b"], ["5", "c"]]
    assert asked_for == [
        {"limit": "500", "labelSelector": "a=b,c=d"},
        {"limit": "500", "labelSelector": "a=b,c=d", "continue": "more&more="},
    ]


def test_items_of_a_list_say_of_what_kind_they_are() -> None:
    async def read(client: Rest) -> list[Any]:
        return [item async for part in client.pages(JOB) for item in part.items]

    (item,) = asked(answering(200, page(5, "a")), read)
    assert (item["apiVersion"], item["kind"]) == ("batch/v1", "Job")


def test_a_list_that_expires_on_the_way_begins_anew() -> None:
    answers = iter([page(5, "ab", "x"), None, page(9, "a", "y"), page(9, "z")])

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        answer = next(answers)
        return web.json_response(answer if answer is not None else refusal(410), status=410 if answer is None else 200)

    assert asked(handler, pages) == [["5", "a", "b"], ["9", "a"], ["9", "z"]]


def test_a_list_that_expires_again_and_again_is_given_up() -> None:
    tries = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        if "continue" in request.query:
            return web.json_response(refusal(410), status=410)
        return web.json_response(page(5, "a", "x"))

    with pytest.raises(RefusedError) as refused:
        asked(handler, pages)
    assert refused.value.code == 410
    assert tries <= 12


def test_an_empty_list_may_have_no_items() -> None:
    assert asked(answering(200, {"metadata": {"resourceVersion": "5"}, "items": None}), pages) == [["5"]]


@pytest.mark.parametrize("answer", [{"metadata": {}}, {"metadata": {"resourceVersion": ""}, "items": []}, OBJECT])
def test_an_answer_that_is_no_list_is_another_try(answer: Any) -> None:
    with pytest.raises(ApiUnavailable, match="no list"):
        asked(answering(200, answer), pages)


# What passes in a moment.


def after(number: int, trouble: Handler, seen: list[str]) -> Handler:
    """Serves after so many troubles, and notes every request."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(f"{request.method} {(await request.read()).decode()}")
        return await trouble(request) if len(seen) <= number else web.json_response(OBJECT)

    return handler


@pytest.mark.parametrize("trouble", [reset, half, answering(429), answering(500), answering(503, refusal(503))])
@pytest.mark.parametrize("call", [get, lambda client: client.post("/x", {"a": 1}), lambda c: c.delete("/x", uid="7")])
def test_trouble_of_a_moment_is_not_noticed(trouble: Handler, call: Any) -> None:
    seen: list[str] = []
    asked(after(TRIES - 1, trouble, seen), call)
    assert (len(seen), len(set(seen))) == (TRIES, 1)


@pytest.mark.parametrize(
    "trouble",
    [answering(code, refusal(code), headers={"Retry-After": "1"}) for code in (429, 503)] + [answering(401)],
    ids=["it is busy", "it restarts", "credentials"],
)
def test_a_server_that_wants_to_be_left_alone_is(trouble: Handler) -> None:
    seen: list[str] = []
    with pytest.raises(ApiUnavailable):
        asked(after(1, trouble, seen), get)
    assert len(seen) == 1


def test_each_try_of_a_write_is_allowed_anew() -> None:
    seen: list[str] = []

    def may_write() -> None:
        if seen:
            raise ApiUnavailable("no longer")

    with pytest.raises(ApiUnavailable, match="no longer"):
        asked(after(1, reset, seen), lambda client: client.post("/x", {}), may_write=may_write)
    assert len(seen) == 1


# Figures.


def test_requests_are_counted_by_verb_and_answer() -> None:
    def count(verb: str, code: int) -> float:
        labels = {"verb": verb, "code": str(code)}
        return metrics.REGISTRY.get_sample_value("posttrain_api_request_seconds_count", labels) or 0.0

    before = [count("GET", 200), count("GET", 503), count("GET", 0)]
    asked(answering(200, OBJECT), get)
    for handler in (answering(503, refusal(503)), reset):
        with pytest.raises(ApiUnavailable):
            asked(handler, get)
    after = [count("GET", 200), count("GET", 503), count("GET", 0)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, TRIES, TRIES]


# Where the API server is.


def kubeconfig(folder: Path, name: str = "kubeconfig") -> Path:
    path = folder / name
    user, cluster = {"token": SECRET}, {"server": "https://api.example:6443"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": cluster}],
        "users": [{"name": "x", "user": user}],
    }
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a kubeconfig, outside of any cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("place", ["environment", "home", "among several"])
def test_the_api_server_is_where_a_kubeconfig_says(home: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "home":
        (home / ".kube").mkdir()
        kubeconfig(home / ".kube", "config")
    else:
        first = "/nonexistent:" if place == "among several" else ""
        monkeypatch.setenv("KUBECONFIG", f"{first}{kubeconfig(home)}")
    assert asyncio.run(load_configuration()).host == "https://api.example:6443"


def test_without_a_cluster_the_remedy_is_told(home: Path) -> None:
    with pytest.raises(NoClusterError, match="set KUBECONFIG to a file that names one"):
        asyncio.run(load_configuration())


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"[]", b"a: [1\ntoken: " + SECRET.encode(), b"\xff\x00", b"apiVersion: v1\nkind: Config\n"],
)
def test_a_file_that_is_no_kubeconfig_is_named_and_not_quoted(
    home: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "broken"
    file.write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(NoClusterError, match="broken") as error:
        asyncio.run(load_configuration())
    assert "KUBECONFIG" in str(error.value)
    assert SECRET not in str(error.value)
