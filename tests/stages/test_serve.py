"""The rollout server stage: how it ends, and that it leaves its trainer's folder alone."""

import errno
import shutil
import signal
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.stage import ServeStage
from posttrain_serve.command import command, environment
from posttrain_serve.server import check_port
from support.recording import recorded
from support.stages import phase, pod_address, run_stage_process, start_stage_process
from support.tiny import mount, run_folder, serve_config
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)


def test_a_stop_request_is_the_normal_end_and_touches_nothing_of_the_trainer(tiny_inputs: Path, tmp_path: Path) -> None:
    root, address = mount(tmp_path / "run", tiny_inputs), pod_address()
    folder = run_folder(root, "RLJob")
    config = serve_config()
    trainers = [folder / layout.MANIFEST, folder / layout.ARTIFACT / "x", folder / ".staging-1-0" / "x"]
    for path in trainers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the trainer's", encoding="utf-8")
    stage = start_stage_process(config, root, env={"POD_IP": address})
    wait_for(lambda: phase(address) == "starting server", "the start of vLLM")
    stage.process.send_signal(signal.SIGTERM)
    result = stage.wait()
    assert (result.outcome, result.exit_code) == ("Succeeded", ExitCode.DONE)
    assert [path.read_text(encoding="utf-8") for path in trainers] == ["the trainer's"] * 3


def test_a_server_that_cannot_start_tells_the_last_lines_of_its_log(tiny_inputs: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    model = root / "inputs" / "base-model"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "unheard-of"}', encoding="utf-8")
    result = run_stage_process(serve_config(), root)
    assert result.exit_code is ExitCode.SERVER_LOST
    assert result.message.startswith("spec.rollout: ")
    assert "raise run.resources.memory or lower rollout.cacheMemoryMi" in result.message
    assert "unheard-of" in result.message


def test_pickled_weights_are_not_read(tiny_inputs: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    root = tmp_path / "pickled"
    model = root / "inputs" / "base-model"
    shutil.copytree(tiny_inputs / "base-model", model)
    weights = model / "model.safetensors"
    torch.save(load_file(weights), model / "pytorch_model.bin")
    weights.unlink()
    stage = start_stage_process(serve_config(), root)
    assert stage.wait().exit_code is ExitCode.SERVER_LOST
    assert "Cannot find any model weights" in stage.log


def test_every_setting_reaches_the_server() -> None:
    config, seen = serve_config(), set[str]()
    for gpus in (0, 1):
        run = config.run.model_copy(update={"gpus": gpus})
        watched = recorded(config.model_copy(update={"run": run}), seen)
        command(watched, model=Path("model"), host="localhost")
        environment(watched, inherited={}, host="localhost", key="key")
    assert set(ServeStage.model_fields) - {"schema_version", "stage", "run"} <= seen


def test_an_address_that_this_machine_lacks_is_not_taken_for_a_taken_port() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        check_port("192.0.2.1", layout.SERVER_PORT)
    assert caught.value.errno == errno.EADDRNOTAVAIL
