"""The rollout client: what TRL calls a ``VLLMClient``, for all servers of a run.

TRL's own client speaks to one server, waits without end, and repeats requests that must not be repeated. This one has
the same methods where the trainer calls them. Prompts are spread over the servers by group, weights go to all of them,
and after each transfer every server must name the version that was sent.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from posttrain_contract import layout
from posttrain_training.gang import first_line, is_broken_group
from posttrain_training.rollout import MODEL_NAME

from posttrain_rl.concurrency import concurrently
from posttrain_rl.servers import Server, lost, post_all
from posttrain_rl.transfer import Named, Sender, open_sender

log = logging.getLogger(__name__)

GENERATION_SECONDS = 3600.0
TRANSFER_SECONDS = 600.0

Metadata = Sequence[tuple[str, str, list[int]]]
"""Name, element type and shape of each tensor, in the order of sending."""


class RolloutClient:
    """Generates with the servers and keeps their weights up to date."""

    def __init__(self, servers: Sequence[Server], *, address: str, seed: int) -> None:
        """``address`` is where the servers find this trainer; ``seed`` is the run's."""
        self._servers = servers
        self._address = address
        self._seed = seed
        self._sender: Sender | None = None
        self.step: Callable[[], int] = lambda: 0
        """The optimizer steps done; the trainer's, once there is a trainer. It is the version of the weights."""
        self.version = -1
        """The version that all servers have; -1 before the first transfer."""

    def get_server_info(self) -> Any:
        """The one setting that the trainer asks for, which our servers always have.

        The servers' own answer would describe their whole system first, which takes seconds and fails without pip.
        """
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def init_communicator(self, device: Any) -> None:
        """Makes the group of this trainer (rank 0) and all workers of all servers.

        Raises ``StageError`` (PORT_TAKEN, SERVER_LOST).
        """
        sizes = [int(server.get("/get_world_size")["world_size"]) for server in self._servers]
        world_size = 1 + sum(sizes)
        offsets = [1 + sum(sizes[:index]) for index in range(len(sizes))]

        def open_ours() -> None:
            with self._losing_servers():
                self._sender = open_sender(address=self._address, world_size=world_size, device=device)

        def join(server: Server, offset: int) -> None:
            info = {
                "master_address": self._address,
                "master_port": layout.WEIGHT_PORT,
                "rank_offset": offset,
                "world_size": world_size,
            }
            if device.type != "cpu":
                info["packed"] = True
            server.post("/init_weight_transfer_engine", {"init_info": info}, seconds=TRANSFER_SECONDS)

        joins: list[Callable[[], None]] = [
            partial(join, server, offset) for server, offset in zip(self._servers, offsets, strict=True)
        ]
        concurrently([open_ours, *joins])

    def update_named_params(self, metadata: Metadata, named_params: Iterator[Named]) -> None:
        """Sends all weights to all servers and checks that they have them.

        Raises ``StageError`` (SERVER_LOST) when a server does not take part or names another version afterwards.
        """
        version = self.step()
        names, types, shapes = (list(part) for part in zip(*metadata, strict=True))
        info = {"names": names, "dtype_names": types, "shapes": shapes}
        post_all(self._servers, "/start_weight_update", {})
        concurrently([partial(self._send, named_params), *(partial(self._announce, s, info) for s in self._servers)])
        post_all(self._servers, "/finish_weight_update", {"weight_version": str(version)})
        self._check_version(version)
        self.version = version

    def _send(self, parameters: Iterable[Named]) -> None:
        if self._sender is None:
            raise RuntimeError("weights are sent before the group was made")
        with self._losing_servers():
            self._sender.send(parameters)

    @contextmanager
    def _losing_servers(self) -> Iterator[None]:
        """Turns the error of a broken weight group into SERVER_LOST: the other members are the servers' workers."""
        try:
            yield
        except RuntimeError as error:
            if not is_broken_group(error):
                raise
            hosts = ", ".join(server.host for server in self._servers)
            raise lost(f"one of the rollout servers {hosts} left the weight transfer ({first_line(error)})") from error

    @staticmethod
    def _announce(server: Server, info: Any) -> None:
        server.post("/update_weights", {"update_info": info}, seconds=TRANSFER_SECONDS)

    def _check_version(self, expected: int) -> None:
        for server in self._servers:
            found = server.get("/weight_info")["weight_version"]
            if found != str(expected):
                raise lost(f"rollout server {server.host} has weights {found!r} after version {expected} was sent")

    def reset_prefix_cache(self) -> None:
        """Forgets what was computed with older weights."""
        post_all(self._servers, "/reset_prefix_cache", {})

    def generate(
        self,
        *,
        prompts: Sequence[Sequence[int]],
        n: int,
        temperature: float,
        max_tokens: int,
        features: None,
        **sampling: Any,
    ) -> dict[str, Any]:
        """``n`` completions of each tokenized prompt, with the log-probability of each token.

        Lists in the answer: ``prompt_ids`` one for each prompt; ``completion_ids`` (P*n, tokens), ``logprobs`` and
        ``logprob_token_ids`` (P*n, tokens, 1), the completions of one prompt next to each other. Equal weights, step
        and run seed give equal completions. Raises ``StageError`` (SERVER_LOST).
        """
        request = {"n": n, "temperature": temperature, "max_tokens": max_tokens, **_known(sampling)}

        def ask(index: int) -> list[dict[str, Any]]:
            server = self._servers[index % len(self._servers)]
            body = {**_REQUEST, **request, "prompt": list(prompts[index]), "seed": self._request_seed(index)}
            choices: list[dict[str, Any]] = server.post("/v1/completions", body, seconds=GENERATION_SECONDS)["choices"]
            return choices

        answers = concurrently([partial(ask, index) for index in range(len(prompts))])
        choices = [choice for answer in answers for choice in answer]
        return {
            "prompt_ids": [list(prompt) for prompt in prompts],
            "completion_ids": [choice["token_ids"] for choice in choices],
            "logprobs": [[[_number(value)] for value in choice["logprobs"]["token_logprobs"]] for choice in choices],
            "logprob_token_ids": [[[token] for token in choice["token_ids"]] for choice in choices],
        }

    def _request_seed(self, index: int) -> int:
        """A seed of its own for each prompt of each step: vLLM counts on from it for the group's completions."""
        text = f"{self._seed} {self.step()} {index}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


_REQUEST = {"model": MODEL_NAME, "return_token_ids": True, "return_tokens_as_token_ids": True}
_SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "logprobs")


def _known(sampling: dict[str, Any]) -> dict[str, Any]:
    """The sampling settings that the trainer always passes; others are never set by us."""
    return {name: sampling[name] for name in _SAMPLING}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
