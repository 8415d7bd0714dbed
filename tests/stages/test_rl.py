"""Reinforcement learning against a real vLLM server: weights arrive, the key is needed, a dead server is named."""

import contextlib
import http.client
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_runtime.keys import authorization, server_key
from posttrain_runtime.store import read_manifest
from posttrain_serve.guard import ROUTES
from support.processes import children, command_line
from support.readers import read_by_the_operator, read_by_the_supervisor
from support.recording import leaves, recorded
from support.stages import StageProcess, pod_address, run_stage_process, start_stage_process
from support.tiny import context_in_process, history, mount, rl_config, run_folder, serve_config, steps_done
from support.waiting import wait_for

KIND = "RLJob"
STEPS = 12

pytestmark = pytest.mark.timeout(300)


class Server:
    """A rollout server stage that is ready."""

    def __init__(self, root: Path, process: StageProcess, address: str) -> None:
        self.root = root
        self.process = process
        self.address = address

    def ask(self, method: str, route: str, *, key: str | None) -> int:
        """The status of an answer."""
        return status(self.address, layout.SERVER_PORT, method, route, key=key)


def status(address: str, port: int, method: str, route: str, *, key: str | None = None) -> int:
    """The status of an answer; 0 when nobody answers."""
    connection = http.client.HTTPConnection(address, port, timeout=30)
    try:
        connection.request(method, route, headers={} if key is None else {"Authorization": authorization(key)})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A rollout server that all trainings here use; the last test ends it."""
    root = mount(tmp_path_factory.mktemp("rl") / "run", tiny_inputs)
    address = pod_address()
    process = start_stage_process(serve_config(), root, pod="server-0", env={"POD_IP": address})
    try:
        wait_for(
            lambda: (
                process.process.poll() is not None
                or status(address, layout.TELEMETRY_PORT, "GET", "/readyz") == http.client.OK
            ),
            "the server",
        )
        assert process.process.poll() is None, process.log[-4000:]
        yield Server(root, process, address)
    finally:
        process.process.terminate()
        process.process.wait(timeout=60)


def sibling(server: Server, inputs: Path, root: Path) -> Path:
    """A mount root of another run that knows the key of the server."""
    mount(root, inputs)
    folder = run_folder(root, KIND)
    folder.mkdir(parents=True)
    shutil.copy(run_folder(server.root, KIND) / layout.SERVER_KEY, folder)
    return root


@pytest.mark.parametrize(("method", "route"), sorted(ROUTES))
def test_every_route_needs_the_key(server: Server, method: str, route: str) -> None:
    assert server.ask(method, route, key=None) == 401
    assert server.ask(method, route, key="another key") == 401


@pytest.mark.parametrize(
    ("method", "route"), [("POST", "/collective_rpc"), ("GET", "/metrics"), ("GET", "/v1/models"), ("GET", "/docs")]
)
def test_an_unlisted_route_is_closed_with_the_key_too(server: Server, method: str, route: str) -> None:
    assert server.ask(method, route, key=None) == 401
    assert server.ask(method, route, key=server_key(run_folder(server.root, KIND))) == 404


def test_a_second_server_at_the_same_address_says_that_the_port_is_taken(server: Server) -> None:
    result = run_stage_process(serve_config(), server.root, pod="server-1", env={"POD_IP": server.address})
    assert result.exit_code is ExitCode.PORT_TAKEN
    assert server.address in result.message


@pytest.mark.filterwarnings("default")
def test_every_field_is_read_by_the_trainer_or_the_operator(
    server: Server, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posttrain_rl.rank import work

    monkeypatch.setenv("POD_IP", pod_address())
    root = sibling(server, tiny_inputs, tmp_path / "recorded")
    config = rl_config(steps=1, servers=(server.address,))
    seen: set[str] = set()
    outcome = work(context_in_process(config.model_copy(update={"spec": recorded(config.spec, seen)}), root))
    assert outcome.metrics["steps"] == 1
    assert set(leaves(config.spec)) == seen | read_by_the_operator(config.spec) | read_by_the_supervisor(config)


@pytest.fixture(scope="module")
def undisturbed(
    server: Server, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StageResult]:
    """A run that nothing disturbed."""
    root = sibling(server, tiny_inputs, tmp_path_factory.mktemp("rl") / "undisturbed")
    return root, run_stage_process(rl_config(steps=STEPS, servers=(server.address,)), root)


def test_each_step_is_sampled_with_the_weights_of_the_step_before(undisturbed: tuple[Path, StageResult]) -> None:
    root, result = undisturbed
    assert result.outcome == "Succeeded"
    assert result.metrics["steps"] == STEPS
    assert result.metrics["samplingLogpDifference"] < 1e-5
    figures = {step: values for step, values in history(root, KIND).items() if "loss" in values}
    assert list(figures) == list(range(1, STEPS + 1))
    for step, values in figures.items():
        assert values["samplingLogpDifference"] < 1e-5
        assert values["weightVersion"] == step - 1


def test_the_result_tells_reward_and_exact_match_before_and_after(undisturbed: tuple[Path, StageResult]) -> None:
    root, result = undisturbed
    for figure in ("reward", "exactMatchBefore", "exactMatch"):
        assert 0 <= result.metrics[figure] <= 1
    assert result.metrics["firstReward"] == history(root, KIND)[1]["reward"]
    assert result.metrics["weightVersion"] == STEPS - 1
    assert read_manifest(run_folder(root, KIND)) is not None


def test_a_stopped_training_goes_on_from_its_checkpoint_to_the_same_end(
    server: Server, undisturbed: tuple[Path, StageResult], tiny_inputs: Path, tmp_path: Path
) -> None:
    root = sibling(server, tiny_inputs, tmp_path / "stopped")
    stage = start_stage_process(rl_config(steps=STEPS, servers=(server.address,)), root)
    wait_for(lambda: steps_done(root, KIND) >= 2, "2 steps")
    stage.process.send_signal(signal.SIGTERM)
    stopped = stage.wait()
    assert stopped.exit_code is ExitCode.PREEMPTED
    saved = steps_done(root, KIND)
    assert read_manifest(run_folder(root, KIND)) is None

    result = run_stage_process(rl_config(steps=STEPS, servers=(server.address,), attempt=2), root)
    assert result.outcome == "Succeeded"
    assert result.resumed_from == f"checkpoint-{saved}"
    ours, theirs = history(root, KIND), history(undisturbed[0], KIND)
    for step in range(1, STEPS + 1):
        assert ours[step]["samplingLogpDifference"] < 1e-5
        assert ours[step]["reward"] == theirs[step]["reward"]
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-4, abs=1e-6)


def test_a_server_that_dies_ends_the_training_as_a_lost_server(
    server: Server, tiny_inputs: Path, tmp_path: Path
) -> None:
    """The last test of this module: it ends the server."""
    root = sibling(server, tiny_inputs, tmp_path / "lost")
    stage = start_stage_process(rl_config(steps=10_000, servers=(server.address,)), root)
    wait_for(lambda: steps_done(root, KIND) >= 2, "2 steps")
    (api_server,) = children(server.process.process.pid)
    engine = next(child for child in children(api_server) if "EngineCore" in command_line(child))
    os.kill(api_server, signal.SIGKILL)
    try:
        result = stage.wait()
        ended = server.process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine, signal.SIGKILL)  # in a pod it ends with the stage, which is the pod's first process
    assert result.exit_code is ExitCode.SERVER_LOST
    assert server.address in result.message
    assert "run.resources.memory" in result.message
    assert ended.exit_code is ExitCode.SERVER_LOST
    assert "last lines" in ended.message
