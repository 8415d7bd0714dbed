"""Inputs on the Hub, read by stage programs through the real client: which commit and files, and what goes wrong."""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.filter import FilterSpec
from posttrain_contract.hub import Pins
from posttrain_contract.result import StageResult
from posttrain_contract.stage import FilterStage, ResolvedInput
from posttrain_runtime.store import read_manifest
from support.hub import Answer, Fault, File, Repository, StandInHub, stand_in_hub
from support.processes import children, command_line, environment
from support.stages import StageProcess, pod_address, run_facts, start_stage_process
from support.tiny import finetune_config, mount, run_folder
from support.waiting import wait_for

TOKEN = "hf_a_token_of_the_test"
NAME = "acme/problems"
RUN = "store/test/filterjob/test-0"


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with stand_in_hub() as running:
        yield running


def rows(count: int, *, first: int = 0) -> bytes:
    """Lines of JSON; every second row is kept by the filter."""
    return b"".join(json.dumps({"n": n, "rate": n % 2}).encode() + b"\n" for n in range(first, first + count))


def publish(hub: StandInHub, files: Mapping[str, bytes], *, kind: str = "dataset", name: str = NAME) -> str:
    """Makes files the newest commit of a repository and returns its name; Parquet and large files are in LFS."""
    repository = hub.repositories.setdefault((kind, name), Repository(private=False))
    held = {path: File(data, lfs=len(data) > 1000) for path, data in files.items()}
    return repository.commit("main", held)


def configure(hub: StandInHub, uri: str, *, attempt: int = 1) -> FilterStage:
    """A filter of an input on the Hub."""
    inputs = {"source": ResolvedInput(uri=uri, path="store/test/hub")}
    facts = run_facts("FilterJob", inputs=inputs, attempt=attempt).model_copy(update={"hub": hub.url})
    return FilterStage(
        run=facts, spec=FilterSpec.parse({"source": {"uri": uri}, "byLabel": {"column": "rate", "max": 0.5}})
    )


def start(config: FilterStage, root: Path, *, token: str = "", pod: str = "", address: str = "") -> StageProcess:
    """Starts the filter, with a token if one is given."""
    env = {"HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "POD_IP": address or pod_address()}
    return start_stage_process(config, root, env=env, pod=pod)


def run(hub: StandInHub, root: Path, uri: str = f"hf://datasets/{NAME}", **settings: Any) -> StageResult:
    """Runs the filter to its end."""
    attempt = settings.pop("attempt", 1)
    return start(configure(hub, uri, attempt=attempt), root, **settings).wait()


def kept(root: Path) -> list[int]:
    """The numbers of the rows that were kept."""
    files = sorted((root / RUN / layout.ARTIFACT).iterdir())
    return [json.loads(line)["n"] for file in files for line in file.read_bytes().splitlines()]


def test_a_branch_is_resolved_once_and_a_retry_reads_the_same_bytes(hub: StandInHub, tmp_path: Path) -> None:
    commit = publish(hub, {"data.jsonl": rows(4)})
    result = run(hub, tmp_path)
    assert (result.outcome, result.revisions) == ("Succeeded", {"source": commit}), result
    publish(hub, {"data.jsonl": rows(4, first=100)})
    (tmp_path / RUN / layout.MANIFEST).unlink()
    again = run(hub, tmp_path, attempt=2)
    assert again.revisions == {"source": commit}
    assert kept(tmp_path) == [0, 2]


def test_a_retry_needs_no_hub_once_everything_is_fetched(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"data.jsonl": rows(4)})
    run(hub, tmp_path)
    (tmp_path / RUN / layout.MANIFEST).unlink()
    hub.calls.clear()
    assert run(hub, tmp_path, attempt=2).outcome == "Succeeded"
    assert not hub.calls


def test_the_lineage_names_the_commit_and_the_bytes(hub: StandInHub, tmp_path: Path) -> None:
    commit = publish(hub, {"data.jsonl": rows(4)})
    run(hub, tmp_path)
    manifest = read_manifest(tmp_path / RUN)
    (fetched,) = (tmp_path / "store/test/hub").iterdir()
    source = read_manifest(fetched)
    assert manifest is not None
    assert source is not None
    assert manifest.inputs["source"].uri == f"hf://datasets/{NAME}@{commit}"
    assert manifest.inputs["source"].digest == source.digest


def test_two_objects_share_what_was_fetched_and_another_commit_is_fetched_anew(hub: StandInHub, tmp_path: Path) -> None:
    first = publish(hub, {"data.jsonl": rows(4)})
    run(hub, tmp_path)
    shutil.rmtree(tmp_path / RUN)
    hub.calls.clear()
    assert run(hub, tmp_path, f"hf://datasets/{NAME}@{first}").outcome == "Succeeded"
    assert not hub.calls
    shutil.rmtree(tmp_path / RUN)
    publish(hub, {"data.jsonl": rows(4, first=10)})
    assert run(hub, tmp_path).outcome == "Succeeded"
    assert kept(tmp_path) == [10, 12]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("main/train-*.jsonl", [0, 2, 10, 12]),
        ("main/train-0.jsonl", [0, 2]),
        ("**/*.jsonl", [0, 2, 10, 12, 20, 22, 30, 32]),
        ("other", [30, 32]),
    ],
)
def test_a_path_chooses_the_files(hub: StandInHub, tmp_path: Path, path: str, expected: list[int]) -> None:
    files = {"main/train-0.jsonl": 0, "main/train-1.jsonl": 10, "main/test-0.jsonl": 20, "other/train.jsonl": 30}
    data = {name: rows(4, first=first) for name, first in files.items()}
    publish(hub, {"README.md": b"x", **data})
    assert run(hub, tmp_path, f"hf://datasets/{NAME}@main/{path}").outcome == "Succeeded"
    assert sorted(kept(tmp_path)) == expected


def test_a_download_that_breaks_off_goes_on_with_the_files_that_are_missing(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"a.jsonl": rows(100), "b.jsonl": rows(200_000)})
    hub.faults = [Fault(r"^GET .*/resolve/.*b.jsonl", 0, times=100, cut=1000)]
    result = run(hub, tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.UNREACHABLE, "HubUnreachable")
    assert not list((tmp_path / "store/test/hub").glob("*/artifact.json"))
    hub.faults.clear()
    hub.calls.clear()
    assert run(hub, tmp_path, attempt=2).outcome == "Succeeded"
    assert hub.count(r"^GET .*/resolve/.*a.jsonl") == 0
    assert len(kept(tmp_path)) == 100_050


def test_files_that_arrive_damaged_are_not_published(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, {"data.jsonl": rows(100)})
    with monkeypatch.context() as patch:
        read = StandInHub._read

        def damaged(self: StandInHub, *arguments: Any, **names: Any) -> Any:
            answer = read(self, *arguments, **names)
            return type(answer)(answer.status, answer.body.replace(b"1", b"3"), answer.headers)

        patch.setattr(StandInHub, "_read", damaged)
        result = run(hub, tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.UNREACHABLE, "DownloadDamaged")
    assert "spec.source.uri: data.jsonl of acme/problems" in result.message
    assert run(hub, tmp_path, attempt=2).outcome == "Succeeded"


def test_what_was_damaged_in_the_store_is_fetched_again(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"data.jsonl": rows(4)})
    run(hub, tmp_path)
    (stored,) = (tmp_path / "store/test/hub").glob("*/artifact/data.jsonl")
    stored.write_bytes(stored.read_bytes().replace(b"1", b"0"))
    (tmp_path / RUN / layout.MANIFEST).unlink()
    assert run(hub, tmp_path, attempt=2).outcome == "Succeeded"
    assert kept(tmp_path) == [0, 2]


@pytest.mark.parametrize("damaged", [False, True])
def test_several_pods_fetch_once(hub: StandInHub, tmp_path: Path, damaged: bool) -> None:
    publish(hub, {"data.jsonl": rows(100)})
    if damaged:
        run(hub, tmp_path)
        (stored,) = (tmp_path / "store/test/hub").glob("*/artifact/data.jsonl")
        stored.write_bytes(stored.read_bytes().replace(b"1", b"0"))
        (tmp_path / RUN / layout.MANIFEST).unlink()
        hub.calls.clear()
    config = configure(hub, f"hf://datasets/{NAME}")
    pods = [start(config, tmp_path, pod=f"pod-{number}") for number in range(3)]
    results = [pod.wait() for pod in pods]
    assert {result.outcome for result in results} == {"Succeeded"}, results
    assert hub.count(r"^GET .*/resolve/.*data.jsonl") == 1
    assert kept(tmp_path) == list(range(0, 100, 2))


def test_a_stop_request_ends_a_download(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"data.jsonl": rows(100)})
    hub.held = threading.Event()
    pod = start(configure(hub, f"hf://datasets/{NAME}"), tmp_path)
    wait_for(lambda: hub.count("^GET .*/resolve/") > 0, "the download to begin")
    pod.process.terminate()
    try:
        result = pod.wait()
    finally:
        hub.held.set()
    assert result.exit_code is ExitCode.PREEMPTED_UNSAVED
    assert not list((tmp_path / "store/test/hub").glob("*/artifact.json"))


@pytest.mark.slow  # the client tries five times
def test_a_file_that_the_hub_does_not_give_can_be_tried_again(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"data.jsonl": rows(4)})
    hub.faults = [Fault("^(GET|HEAD) .*/resolve/", 503, times=1000)]
    assert run(hub, tmp_path).exit_code is ExitCode.UNREACHABLE


def test_the_files_of_a_gated_repository_need_a_token_and_no_log_shows_it(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"data.jsonl": rows(4)})
    hub.gated[NAME] = TOKEN
    result = run(hub, tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.REFUSED, "GatedRepository")
    assert "spec.source.uri: acme/problems" in result.message
    assert "accept its terms; correct the name; run.secrets.huggingFace is not set" in result.message
    wrong = run(hub, tmp_path, attempt=2, token="hf_another")
    assert "run.secrets.huggingFace is set: it must be one that may read it" in wrong.message
    pod = start(configure(hub, f"hf://datasets/{NAME}", attempt=3), tmp_path, token=TOKEN)
    assert pod.wait().outcome == "Succeeded"
    assert TOKEN not in pod.log


@pytest.mark.parametrize(
    ("uri", "files", "failure"),
    [
        ("hf://datasets/acme/none", {}, (ExitCode.REFUSED, "HubRefused", "answered 404; correct the name")),
        (f"hf://datasets/{NAME}@v9", {"a.jsonl": b""}, (ExitCode.REFUSED, "RevisionNotFound", "no such revision")),
        (
            f"hf://datasets/{NAME}@main/**/*.jsonl",
            {"../a.jsonl": b"x"},
            (ExitCode.DATA, "OddFileName", "has a file '../a.jsonl', which no folder can hold"),
        ),
        (f"hf://datasets/{NAME}", {"a.txt": b"x"}, (ExitCode.DATA, "NoReadableFile", "there is a.txt")),
        (f"hf://datasets/{NAME}@main/b*", {"a.jsonl": b"x"}, (ExitCode.DATA, "NoSuchFile", "has no b*; there is a.j")),
        (
            f"hf://datasets/{NAME}",
            {"train-0.jsonl": b"x", "test-0.jsonl": b"x"},
            (ExitCode.DATA, "AmbiguousFiles", "acme/problems/test-0.jsonl; there is test-0.jsonl, train-0.jsonl"),
        ),
        (f"hf://{NAME}", {"pytorch_model.bin": b"x"}, (ExitCode.MODEL, "NoSafetensors", "has no .safetensors file")),
    ],
)
def test_what_cannot_be_read_is_named(
    hub: StandInHub, tmp_path: Path, uri: str, files: dict[str, bytes], failure: tuple[ExitCode, str, str]
) -> None:
    if files:
        publish(hub, files, kind="dataset" if "datasets/" in uri else "model")
    result = run(hub, tmp_path, uri)
    code, reason, sentence = failure
    assert (result.exit_code, result.reason) == (code, reason), result.message
    assert result.message.startswith("spec.source.uri: acme/")
    assert sentence in result.message


def test_a_hub_that_does_not_answer_can_be_tried_again(hub: StandInHub, tmp_path: Path) -> None:
    publish(hub, {"data.jsonl": rows(4)})
    hub.faults = [Fault("^GET /api/", 500, times=100)]
    result = run(hub, tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.UNREACHABLE, "HubUnreachable")
    assert result.exit_code.retriable


def test_a_revision_may_have_a_slash_which_is_written_as_in_the_hubs_own_addresses(
    hub: StandInHub, tmp_path: Path
) -> None:
    commit = publish(hub, {"data.jsonl": rows(4)})
    hub.repositories["dataset", NAME].branches["refs/convert/parquet"] = commit
    publish(hub, {"data.jsonl": rows(4, first=100)})
    result = run(hub, tmp_path, f"hf://datasets/{NAME}@refs%2Fconvert%2Fparquet/data.jsonl")
    assert result.revisions == {"source": commit}, result


def test_an_answer_that_is_not_the_hubs_can_be_tried_again(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, {"data.jsonl": rows(4)})
    portal = Answer(body=b"<html>please log in</html>", headers={"Content-Type": "text/html"})
    monkeypatch.setattr(StandInHub, "_info", lambda *_, **__: portal)
    result = run(hub, tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.UNREACHABLE, "HubUnreachable"), result.message


def test_a_failed_job_tells_the_commit_too(hub: StandInHub, tmp_path: Path) -> None:
    commit = publish(hub, {"data.jsonl": b"no json\n"})
    result = run(hub, tmp_path)
    assert (result.outcome, result.revisions) == ("Failed", {"source": commit})


def test_the_pins_are_on_record_in_the_run_folder(hub: StandInHub, tmp_path: Path) -> None:
    commit = publish(hub, {"data.jsonl": rows(4)})
    run(hub, tmp_path)
    pins = Pins.model_validate_json((tmp_path / RUN / layout.PINS).read_bytes())
    assert pins.inputs["source"].revision == commit
    assert pins.inputs["source"].uri == f"hf://datasets/{NAME}"


def test_a_model_is_trained_whose_processes_never_see_the_token(
    hub: StandInHub, tiny_inputs: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (tiny_inputs / "base-model").iterdir()}
    commit = publish(hub, {**files, "pytorch_model.bin": b"pickled"}, kind="model", name="acme/tiny")
    hub.gated["acme/tiny"] = TOKEN
    root = mount(tmp_path / "run", tiny_inputs)
    config = finetune_config(steps=2)
    inputs = {**config.run.inputs, "model": ResolvedInput(uri="hf://acme/tiny@main", path="store/test/hub")}
    facts = config.run.model_copy(update={"inputs": inputs, "hub": hub.url})
    address = pod_address()
    env = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "POD_IP": address}
    stage = start_stage_process(config.model_copy(update={"run": facts}), root, env=env)
    wait_for(lambda: any("posttrain_finetune.rank" in command_line(c) for c in children(stage.process.pid)), "a rank")
    ranks = [child for child in children(stage.process.pid) if "posttrain_finetune.rank" in command_line(child)]
    assert all(TOKEN not in environment(rank).values() for rank in ranks)
    assert Path(f"/proc/{stage.process.pid}/environ").stat().st_uid == 0, "only root may look"
    result = stage.wait()
    assert (result.outcome, result.revisions) == ("Succeeded", {"model": commit}), result
    manifest = read_manifest(run_folder(root, "FineTuneJob"))
    assert manifest is not None
    assert manifest.inputs["model"].uri == f"hf://acme/tiny@{commit}"
    (fetched,) = (root / "store/test/hub").glob("model-acme--tiny-*/artifact")
    assert not (fetched / "pytorch_model.bin").exists()
