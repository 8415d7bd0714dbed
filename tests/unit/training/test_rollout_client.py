"""The rollout client over several servers: who gets which prompts, who gets weights, and what a lost server does."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_rl import transfer
from posttrain_rl.client import RolloutClient
from posttrain_rl.servers import Server, wait_until_healthy
from posttrain_rl.transfer import listen
from posttrain_runtime.errors import Preempted, StageError
from posttrain_runtime.keys import authorization
from posttrain_runtime.progress import ProgressReporter
from posttrain_training.weights import GlooGroup
from support.stages import pod_address

KEY = "key"
PARAMETERS = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.tensor([7], dtype=torch.bfloat16)}
METADATA = [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in PARAMETERS.items()]
SAMPLING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "logprobs": 0}


class QuietServer(ThreadingHTTPServer):
    """A request that fails, as when a group breaks, is the client's to notice."""

    def handle_error(self, *_: Any) -> None:
        pass


class Rollouts:
    """A rollout server's side of the protocol, with a real weight group and made-up completions."""

    def __init__(self, *, workers: int = 1) -> None:
        self.workers = workers
        self.prompts: list[tuple[list[int], int]] = []
        self.received: dict[str, torch.Tensor] = {}
        self.version = "default"
        self.stale = False
        self.hangs_at = ""
        """The route where the engine is gone and the HTTP server does not know it yet."""
        self._closed = threading.Event()
        self.group: GlooGroup | None = None
        self.rank = 0
        self.address = pod_address()
        self._http = QuietServer((self.address, layout.SERVER_PORT), self._handler())
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, route: str, body: Any) -> Any:
        if route == self.hangs_at:
            self.group = None
            self._closed.wait()
        match route:
            case "/get_world_size":
                return {"world_size": self.workers}
            case "/init_weight_transfer_engine":
                info = body["init_info"]
                self.rank = info["rank_offset"]
                self.group = GlooGroup(
                    address=info["master_address"],
                    port=info["master_port"],
                    rank=self.rank,
                    world_size=info["world_size"],
                    timeout_seconds=20,
                )
            case "/update_weights":
                self._receive(body["update_info"])
            case "/finish_weight_update":
                self.version = "default" if self.stale else body["weight_version"]
            case "/weight_info":
                return {"weight_version": self.version}
            case "/v1/completions":
                self.prompts.append((body["prompt"], body["seed"]))
                tokens = [body["prompt"][0], 9]
                choice = {"token_ids": tokens, "logprobs": {"token_logprobs": [-0.5, -0.25]}}
                return {"choices": [choice] * body["n"]}
        return {}

    def _receive(self, info: Any) -> None:
        assert self.group is not None
        for name, dtype, shape in zip(info["names"], info["dtype_names"], info["shapes"], strict=True):
            self.received[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            self.group.broadcast(self.received[name])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        rollouts = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(None)

            def do_POST(self) -> None:
                self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _reply(self, body: Any) -> None:
                known = self.headers["Authorization"] == authorization(KEY)
                data = json.dumps(rollouts.answer(self.path, body)).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def rollouts() -> Iterator[list[Rollouts]]:
    servers = [Rollouts(), Rollouts()]
    yield servers
    for server in servers:
        server.close()


def client_of(servers: list[Rollouts], *, seed: int = 0, step: int = 0) -> RolloutClient:
    client = RolloutClient([Server(server.address, key=KEY) for server in servers], address=pod_address(), seed=seed)
    client.step = lambda: step
    return client


def generate(client: RolloutClient, prompts: list[list[int]]) -> dict[str, Any]:
    return client.generate(prompts=prompts, n=2, temperature=0.7, max_tokens=4, features=None, **SAMPLING)


def lost_by(action: Callable[[], object]) -> str:
    with pytest.raises(StageError) as caught:
        action()
    assert caught.value.code is ExitCode.SERVER_LOST
    return caught.value.message


def test_groups_are_spread_over_the_servers_and_come_back_in_order(rollouts: list[Rollouts]) -> None:
    answer = generate(client_of(rollouts), [[1], [2], [3]])
    assert sorted(prompt for prompt, _ in rollouts[0].prompts) == [[1], [3]]
    assert [prompt for prompt, _ in rollouts[1].prompts] == [[2]]
    assert answer["completion_ids"] == [[1, 9], [1, 9], [2, 9], [2, 9], [3, 9], [3, 9]]
    assert answer["logprobs"][0] == [[-0.5], [-0.25]]
    assert answer["logprob_token_ids"][0] == [[1], [9]]


def test_each_prompt_of_each_step_has_a_seed_of_its_own_that_can_be_repeated(rollouts: list[Rollouts]) -> None:
    for seed, step in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        generate(client_of(rollouts, seed=seed, step=step), [[1], [2]])
    first, second = (server.prompts for server in rollouts)
    assert first[0] == first[3]
    assert len({seed for _, seed in first[:3] + second[:3]}) == 6


def test_all_servers_get_all_weights_and_name_their_version(rollouts: list[Rollouts]) -> None:
    client = client_of(rollouts, step=5)
    client.init_communicator(torch.device("cpu"))
    assert [server.rank for server in rollouts] == [1, 2]
    client.update_named_params(METADATA, iter(PARAMETERS.items()))
    assert client.version == 5
    for server in rollouts:
        assert server.version == "5"
        assert all(torch.equal(server.received[name], value) for name, value in PARAMETERS.items())


def test_a_server_that_names_another_version_is_lost(rollouts: list[Rollouts]) -> None:
    client = client_of(rollouts, step=5)
    client.init_communicator(torch.device("cpu"))
    rollouts[1].stale = True
    message = lost_by(lambda: client.update_named_params(METADATA, iter(PARAMETERS.items())))
    assert rollouts[1].address in message
    assert "version 5" in message


def test_a_server_that_is_gone_is_named(rollouts: list[Rollouts]) -> None:
    client = client_of(rollouts)
    rollouts[1].close()
    assert rollouts[1].address in lost_by(lambda: generate(client, [[1], [2]]))


def test_an_engine_that_dies_during_a_transfer_is_a_lost_server(rollouts: list[Rollouts]) -> None:
    client = client_of(rollouts)
    client.init_communicator(torch.device("cpu"))
    rollouts[1].hangs_at = "/update_weights"
    count, size = 100, 1 << 18  # more than the kernel takes for a receiver that is gone
    parameters = itertools.repeat(("a", torch.zeros(size)), count)
    message = lost_by(lambda: client.update_named_params([("a", "float32", [size])] * count, parameters))
    assert "left the weight transfer" in message
    assert message.startswith("spec.rollout: ")
    assert rollouts[1].address in message
    assert "run.resources.memory" in message


def test_an_engine_that_dies_before_it_joins_the_group_is_a_lost_server(
    rollouts: list[Rollouts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_TIMEOUT_SECONDS", 1.0)
    rollouts[1].hangs_at = "/init_weight_transfer_engine"
    message = lost_by(lambda: client_of(rollouts).init_communicator(torch.device("cpu")))
    assert "left the weight transfer" in message


def test_a_defect_of_ours_is_not_taken_for_a_lost_server(rollouts: list[Rollouts]) -> None:
    client = client_of(rollouts)
    client.init_communicator(torch.device("cpu"))
    rollouts[0].hangs_at = rollouts[1].hangs_at = "/update_weights"
    with pytest.raises(RuntimeError, match="no storage"):
        client.update_named_params(METADATA, broken_parameters())


def broken_parameters() -> Iterator[tuple[str, Any]]:
    raise RuntimeError("a tensor has no storage")
    yield


def test_a_wrong_key_is_not_retried(rollouts: list[Rollouts]) -> None:
    client = RolloutClient([Server(rollouts[0].address, key="other")], address=pod_address(), seed=0)
    assert "401" in lost_by(lambda: generate(client, [[1]]))


def test_a_taken_weight_port_is_an_error_that_names_it() -> None:
    address = pod_address()
    taken = listen(address)
    with pytest.raises(StageError) as caught:
        listen(address)
    taken.close()
    assert caught.value.code is ExitCode.PORT_TAKEN
    assert f"{layout.WEIGHT_PORT} on {address}" in caught.value.message


def test_waiting_for_servers_ends_by_name_or_by_a_stop_request(tmp_path: Path) -> None:
    address = pod_address()
    servers = [Server(address, key=KEY)]
    progress = ProgressReporter(tmp_path / "progress.json", history=tmp_path / "metrics.jsonl")
    stop = threading.Event()
    assert address in lost_by(lambda: wait_until_healthy(servers, progress=progress, stop=stop, seconds=0))
    stop.set()
    with pytest.raises(Preempted):
        wait_until_healthy(servers, progress=progress, stop=stop)
