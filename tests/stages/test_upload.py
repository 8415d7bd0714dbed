"""The upload stage as a process: the folders it makes, what reaches a Hub, and what it says when it cannot."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from posttrain_contract import layout
from posttrain_contract.artifact import ArtifactType, InputEntry
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_contract.stage import ResolvedInput, UploadStage
from posttrain_contract.upload import TRAINING_DATA_INPUT, UploadSpec
from posttrain_runtime import store
from posttrain_runtime.files import write_atomically
from posttrain_runtime.store import Staged
from posttrain_training.card import Card
from posttrain_upload.work import upload
from support.hub import Fault, StandInHub, stand_in_hub
from support.readers import read_by_the_operator
from support.recording import leaves, recorded
from support.stages import pod_address, run_facts, run_stage_process
from support.tiny import context_in_process

TOKEN = "hf_canary_0123456789"
ROWS = [{"problem": f"{n} + {n}?", "rate": n / 2 if n % 2 else n // 2, "note": None, "n": n} for n in range(40)]
MODEL_FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "tokenizer.json": b'{"a": 1}',
    "README.md": b"from the trainer",
    "optimizer.pt": b"state",
    "trainer_state.json": b"{}",
    "checkpoint-5/model.safetensors": b"old",
    ".cache/x.lock": b"",
}


def make_artifact(root: Path, name: str, kind: ArtifactType, files: Mapping[str, bytes], **facts: Any) -> Path:
    """Publishes an artifact below ``inputs`` as a stage would, with a result that has a figure."""
    run_folder = root / "inputs" / name
    staging = run_folder / ".staging"
    for path, data in files.items():
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
        (staging / path).write_bytes(data)
    staged = Staged(staging, kind, **facts)
    inputs = {"dataset": InputEntry(uri="pvc://store/upstream", digest="a" * 64)}
    manifest = store.describe(staged, config_digest="0" * 64, inputs=inputs)
    result = StageResult(outcome="Succeeded", exit_code=ExitCode.DONE, metrics={"exactMatch": 0.8125})
    write_atomically(run_folder / layout.RESULT, result.message_bytes())
    store.publish(run_folder, staged, manifest)
    return run_folder / layout.ARTIFACT


def make_dataset(root: Path, rows: Sequence[Mapping[str, Any]], *, shards: int = 2) -> Path:
    """A dataset artifact in JSON Lines shards."""
    size = -(-len(rows) // shards)
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    files = {
        f"part-{index:05d}.jsonl": "".join(f"{json.dumps(row)}\n" for row in part).encode()
        for index, part in enumerate(parts)
    }
    return make_artifact(root, "data", "dataset", files, rows=len(rows))


def make_model(root: Path) -> Path:
    """A model artifact."""
    return make_artifact(root, "model", "model", MODEL_FILES, parameters=1234)


def resolved(root: Path, folder: Path) -> ResolvedInput:
    """An input as the operator resolves it."""
    path = folder.relative_to(root).as_posix()
    return ResolvedInput(uri=f"pvc://{path}", path=path)


def configure(
    root: Path, source: Path, *, data: Path | None = None, hub: str | None = None, **spec: Any
) -> UploadStage:
    """An upload of the source."""
    inputs = {"source": resolved(root, source)}
    document = {"source": {"uri": "pvc://store/source"}, "repository": {"id": "acme/thing"}, **spec}
    if data is not None:
        inputs[TRAINING_DATA_INPUT] = resolved(root, data)
        repository = {"id": "acme/thing-data"}
        document["trainingData"] = {"source": {"uri": "pvc://store/data"}, "repository": repository}
    return UploadStage(run=run_facts("UploadJob", inputs=inputs), spec=UploadSpec.parse(document), hub_endpoint=hub)


def run(root: Path, source: Path, *, token: str = TOKEN, **settings: Any) -> StageResult:
    """Runs an upload of the source."""
    address = pod_address()
    env = {"POD_IP": address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return run_stage_process(configure(root, source, **settings), root, env=env)


def folder_of(root: Path) -> Path:
    """The published folder of the one run of a test."""
    return root / "store/test/uploadjob/test-0/artifact"


def forget_run(root: Path) -> None:
    """Makes the next run start anew, as another object's would."""
    shutil.rmtree(root / "store/test")


def front_matter(text: str) -> dict[str, Any]:
    """The metadata of a card."""
    return dict(yaml.safe_load(text.split("---\n")[1]))


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    """A Hub that wants a token."""
    with stand_in_hub(token=TOKEN) as started:
        yield started


def test_a_model_and_its_data_become_two_linked_repositories(tmp_path: Path) -> None:
    card = {"license": "apache-2.0", "language": ["ja", "en"]}
    result = run(tmp_path, make_model(tmp_path), data=make_dataset(tmp_path, ROWS), card=card)

    assert result.artifact is not None, result.message
    assert result.artifact.type == "repository"
    folder = folder_of(tmp_path)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "datasets/acme/thing-data/README.md",
        "datasets/acme/thing-data/data/train-00000-of-00001.parquet",
        "models/acme/thing/README.md",
        "models/acme/thing/config.json",
        "models/acme/thing/model.safetensors",
        "models/acme/thing/tokenizer.json",
    ]
    text = (folder / "models/acme/thing/README.md").read_text(encoding="utf-8")
    assert front_matter(text) == {
        "license": "apache-2.0",
        "language": ["ja", "en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["acme/thing-data"],
    }
    assert "| exactMatch | 0.8125 |" in text
    assert "`pvc://inputs/model/artifact`" in text
    assert "`pvc://store/upstream`" in text
    assert "a" * 64 in text
    front = front_matter((folder / "datasets/acme/thing-data/README.md").read_text(encoding="utf-8"))
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


OWN_CARD = Card(
    name="math-sft",
    library="peft",
    base_model="acme/base",
    tags=("sft", "lora"),
    settings={"method": "sft", "rows": "256"},
    inputs={"dataset": InputEntry(uri="pvc://store/upstream", digest="a" * 64)},
    figures={"exactMatch": 0.5},
    versions={"torch": "2.13.0"},
)


@pytest.mark.parametrize("body", [None, "# Ours\n\nRead this."])
def test_a_models_own_card_becomes_part_of_the_one_card_of_its_repository(tmp_path: Path, body: str | None) -> None:
    files = {**MODEL_FILES, "README.md": OWN_CARD.text().encode()}
    model = make_artifact(tmp_path, "model", "model", files, parameters=1234)
    run(tmp_path, model, card={"license": "apache-2.0", **({"body": body} if body else {})})

    text = (folder_of(tmp_path) / "models/acme/thing/README.md").read_text(encoding="utf-8")
    assert front_matter(text) == {
        "license": "apache-2.0",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": "acme/base",
        "tags": ["posttrain", "sft", "lora"],
    }
    opening, *sections = text.split("\n## ")
    assert opening.split("---\n")[2].strip() == (
        body or "# acme/thing\n\nAn adapter of a language model with 1,234 parameters."
    )
    assert [section.partition("\n")[0] for section in sections] == [
        "Training",
        "Libraries",
        "Made from",
        "Figures of the run that made it",
    ]
    assert text.count("| dataset | `pvc://store/upstream` |") == 1
    assert "| exactMatch | 0.8125 |" in text, "the figures are those of the result"
    assert "| exactMatch | 0.5 |" not in text


def test_rows_survive_the_way_to_parquet(tmp_path: Path) -> None:
    run(tmp_path, make_dataset(tmp_path, ROWS, shards=3))
    (path,) = (folder_of(tmp_path) / "datasets/acme/thing/data").iterdir()
    table = pq.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == {
        "problem": "string",
        "rate": "double",
        "note": "string",
        "n": "int64",
    }
    assert table.to_pylist() == ROWS


def test_the_datasets_library_reads_the_folder_by_its_card(tmp_path: Path) -> None:
    run(tmp_path, make_dataset(tmp_path, ROWS))
    folder = folder_of(tmp_path) / "datasets/acme/thing"
    script = f"import datasets; print(datasets.load_dataset({str(folder)!r}, split='train').num_rows)"
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=env)
    assert int(done.stdout) == len(ROWS)


def test_columns_that_appear_late_are_kept(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": None, "nested": {"x": 1}, "list": []}]
    rows += [{"a": "late", "nested": {"x": 1.5, "y": "z"}, "list": [None, 2], "b": True}]
    run(tmp_path, make_dataset(tmp_path, rows, shards=2))
    (path,) = (folder_of(tmp_path) / "datasets/acme/thing/data").iterdir()
    assert pq.read_table(path).to_pylist() == [
        {"a": None, "nested": {"x": 1.0, "y": None}, "list": [], "b": None},
        {"a": "late", "nested": {"x": 1.5, "y": "z"}, "list": [None, 2], "b": True},
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["text", 1], "part-00001.jsonl:1: column v is int64 here and string in earlier rows"),
        ([{"x": 1}, "text"], "part-00001.jsonl:1: column v is string here and struct<x: int64> in earlier rows"),
        ([{"x": [1]}, {"x": ["a"]}], "part-00001.jsonl:1: column v.x[] is string here and int64 in earlier rows"),
        ([1, 2**70], "part-00001.jsonl:1: column v holds an integer beyond 64 bits"),
        ([{}, {}], "column v holds objects without fields"),
    ],
    ids=["text and number", "object and text", "inside a list", "too big", "empty objects"],
)
def test_a_column_that_no_type_holds_is_named(tmp_path: Path, values: list[Any], sentence: str) -> None:
    result = run(tmp_path, make_dataset(tmp_path, [{"v": value} for value in values], shards=2))
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "InvalidColumn")
    assert f"spec.source: {sentence}" in result.message


def test_input_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inputs/plain"
    folder.mkdir(parents=True)
    result = run(tmp_path, folder)
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "NoArtifact")
    assert "spec.source: pvc://inputs/plain is no artifact" in result.message
    assert "from: KIND/NAME" in result.message


def test_an_artifact_behind_a_link_is_found(tmp_path: Path) -> None:
    link = tmp_path / "inputs/link/artifact"
    link.parent.mkdir(parents=True)
    link.symlink_to(make_dataset(tmp_path, ROWS))
    assert run(tmp_path, link).outcome == "Succeeded"


def test_training_data_must_be_a_dataset_and_belong_to_a_model(tmp_path: Path) -> None:
    model, data = make_model(tmp_path), make_dataset(tmp_path, ROWS)
    assert (
        "spec.trainingData.source: pvc://inputs/model/artifact is a model" in run(tmp_path, model, data=model).message
    )
    assert "only a model has training data" in run(tmp_path, data, data=data).message


def test_what_is_published_on_a_hub_reads_back_byte_for_byte(tmp_path: Path, hub: StandInHub) -> None:
    result = run(tmp_path, make_model(tmp_path), data=make_dataset(tmp_path, ROWS), hub=hub.url)
    assert result.outcome == "Succeeded", result.message
    assert result.metrics["commits"] == 2
    assert result.metrics["filesUploaded"] == 6
    for kind, name in (("model", "acme/thing"), ("dataset", "acme/thing-data")):
        read_back = download(tmp_path, hub, kind, name)
        assert read_back == contents(folder_of(tmp_path) / f"{kind}s" / name)
        assert hub.repositories[kind, name].private


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def download(root: Path, hub: StandInHub, kind: str, name: str) -> dict[str, bytes]:
    """What the client of the Hub downloads."""
    target = root / "download" / kind
    script = (
        "import sys; from huggingface_hub import snapshot_download;"
        "snapshot_download(sys.argv[2], repo_type=sys.argv[1], local_dir=sys.argv[3])"
    )
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    env = {**os.environ, **settings, "HF_HOME": str(root / "home")}
    subprocess.run([sys.executable, "-c", script, kind, name, str(target)], check=True, env=env)
    return contents(target)


def test_a_second_run_of_unchanged_content_sends_nothing(tmp_path: Path, hub: StandInHub) -> None:
    source = make_dataset(tmp_path, ROWS)
    run(tmp_path, source, hub=hub.url)
    sent = hub.count("PUT /lfs/"), hub.count("/commit/")
    forget_run(tmp_path)
    result = run(tmp_path, source, hub=hub.url)
    assert result.outcome == "Succeeded", result.message
    assert (hub.count("PUT /lfs/"), hub.count("/commit/")) == sent == (1, 1)
    assert (result.metrics["commits"], result.metrics["bytesUploaded"]) == (0, 0)


def test_shards_of_an_older_version_are_removed(tmp_path: Path, hub: StandInHub) -> None:
    source = make_dataset(tmp_path, ROWS)
    run(tmp_path, source, hub=hub.url)
    repository = hub.repositories["dataset", "acme/thing"]
    files = repository.files()
    shard = files["data/train-00000-of-00001.parquet"]
    repository.commit("main", {**files, "data/train-00001-of-00002.parquet": shard, "LICENSE": files["README.md"]})
    forget_run(tmp_path)
    run(tmp_path, source, hub=hub.url)
    assert sorted(repository.files()) == ["LICENSE", "README.md", "data/train-00000-of-00001.parquet"]


def test_a_branch_receives_the_files_and_main_stays(tmp_path: Path, hub: StandInHub) -> None:
    repository = {"id": "acme/thing", "branch": "release/v1", "private": False}
    result = run(tmp_path, make_model(tmp_path), hub=hub.url, repository=repository)
    assert result.outcome == "Succeeded", result.message
    made = hub.repositories["model", "acme/thing"]
    assert "model.safetensors" in made.files("release/v1")
    assert not made.files("main")
    assert not made.private


def test_a_repository_of_other_visibility_is_not_touched(tmp_path: Path, hub: StandInHub) -> None:
    source = make_model(tmp_path)
    run(tmp_path, source, hub=hub.url)
    forget_run(tmp_path)
    before = hub.count("/commit/")
    result = run(tmp_path, source, hub=hub.url, repository={"id": "acme/thing", "private": False})
    assert (result.exit_code, result.reason) == (ExitCode.REFUSED, "VisibilityMismatch")
    assert "spec.repository.private is false, but acme/thing exists and is private" in result.message
    assert hub.count("/commit/") == before


@pytest.mark.parametrize(("token", "status"), [("hf_wrong_token", 401), (TOKEN, 403)])
def test_a_refusal_says_what_to_do(tmp_path: Path, hub: StandInHub, token: str, status: int) -> None:
    if status == 403:
        hub.faults.append(Fault("POST /api/repos/create", 403))
    result = run(tmp_path, make_model(tmp_path), hub=hub.url, token=token)
    assert (result.exit_code, result.reason) == (ExitCode.REFUSED, "HubRefused")
    said = f"acme/thing: the Hub at {hub.url} answered {status}; HF_TOKEN is set: give a token that may write to acme"
    assert said in result.message
    assert not folder_of(tmp_path).exists()


def test_a_hub_that_does_not_answer_can_be_tried_again(tmp_path: Path) -> None:
    result = run(tmp_path, make_model(tmp_path), hub="http://127.0.0.1:9")
    assert (result.exit_code, result.reason) == (ExitCode.UNREACHABLE, "HubUnreachable")
    assert "http://127.0.0.1:9" in result.message


def test_a_hub_in_trouble_can_be_tried_again_and_sent_objects_stay(tmp_path: Path, hub: StandInHub) -> None:
    source = make_model(tmp_path)
    hub.faults.append(Fault("POST .*/commit/", 503))
    assert run(tmp_path, source, hub=hub.url).exit_code is ExitCode.UNREACHABLE
    assert run(tmp_path, source, hub=hub.url).outcome == "Succeeded"
    assert hub.count("PUT /lfs/") == 1


def test_a_short_disturbance_is_ridden_out(tmp_path: Path, hub: StandInHub) -> None:
    hub.faults.append(Fault("POST .*/preupload/", 503))
    assert run(tmp_path, make_model(tmp_path), hub=hub.url).outcome == "Succeeded"


def test_a_commit_whose_answer_is_lost_is_not_made_twice(tmp_path: Path, hub: StandInHub) -> None:
    source = make_model(tmp_path)
    hub.faults.append(Fault("POST .*/commit/", 0))
    assert run(tmp_path, source, hub=hub.url).exit_code is ExitCode.UNREACHABLE
    assert run(tmp_path, source, hub=hub.url).outcome == "Succeeded"
    assert hub.count("POST .*/commit/") == 1


def test_the_token_appears_nowhere(tmp_path: Path, hub: StandInHub) -> None:
    run(tmp_path, make_model(tmp_path), hub=hub.url)
    forget = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert forget == []


@pytest.mark.filterwarnings("default")
def test_every_field_is_read_by_the_upload_or_the_operator(
    tmp_path: Path, hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The library has read its variables before.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    config = configure(tmp_path, make_model(tmp_path), data=make_dataset(tmp_path, ROWS), hub=hub.url, card={})
    seen: set[str] = set()
    watched = config.model_copy(update={"spec": recorded(config.spec, seen)})
    hashed: list[Path] = []
    monkeypatch.setattr(store, "digests", hashed.append)
    assert upload(context_in_process(watched, tmp_path)).staged is not None
    assert not hashed, "the start of the stage has done that"
    assert seen | read_by_the_operator(config.spec) == set(leaves(config.spec))
