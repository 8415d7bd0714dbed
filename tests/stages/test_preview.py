"""`posttrain preview`: what a model will see and what it will learn, before anything is trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from posttrain.main import cli
from support.hub import File, Repository, stand_in_hub
from support.tiny import write_pairs

MODEL = {"uri": "pvc://data/base-model"}
COLUMNS = {"prompt": "problem", "completion": "solution"}


@pytest.fixture
def claim(tiny_inputs: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    folder.mkdir()
    (folder / "base-model").symlink_to(tiny_inputs / "base-model")
    shutil.copy(tiny_inputs / "train.jsonl", folder)
    return folder


def preview(claim: Path, *options: str, **spec: Any) -> Result:
    dataset = {"uri": "pvc://data/train.jsonl", "columns": COLUMNS}
    manifest = {
        "apiVersion": "posttrain.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "sft"},
        "spec": {"model": MODEL, "dataset": dataset, **spec},
    }
    path = claim.parent / "job.yaml"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    workspace = claim.parent / "workspace"
    arguments = ["preview", str(path), "--claim", f"data={claim}", "--workspace", str(workspace), *options]
    return CliRunner().invoke(cli, arguments)


def texts(parts: list[list[tuple[str, bool]]], *, learned: bool) -> list[str]:
    return ["".join(text for text, one in part if one is learned) for part in parts]


def test_the_answers_are_what_is_learned(claim: Path) -> None:
    result = preview(claim, "--rows", "2", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["FineTuneJob/sft"]
    source = [json.loads(line) for line in (claim / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2]]
    assert [row["place"] for row in rows] == ["train.jsonl:1", "train.jsonl:2"]
    for row, record in zip(rows, source, strict=True):
        (answer,), (rest,) = texts(row["parts"], learned=True), texts(row["parts"], learned=False)
        assert answer.startswith(record["solution"] + "<|im_end|>")
        assert record["problem"] in rest


def test_people_see_each_token_and_where_a_line_ends(claim: Path) -> None:
    result = preview(claim, "--rows", "1")
    assert result.exit_code == 0, result.stderr
    assert "FineTuneJob/sft  train.jsonl:1" in result.stdout
    assert "<|im_start|>|" in result.stdout
    assert "\u21b5|" in result.stdout
    assert result.stderr == "FineTuneJob/sft: preparing rows\n"


def test_a_pair_is_its_prompt_and_both_answers(claim: Path, tiny_inputs: Path) -> None:
    write_pairs(claim / "pairs.jsonl", tiny_inputs, count=1)
    dataset = {"uri": "pvc://data/pairs.jsonl", "format": "preference"}
    result = preview(claim, "--json", method="dpo", dataset=dataset)
    assert result.exit_code == 0, result.stderr
    ((row),) = json.loads(result.stdout)["FineTuneJob/sft"]
    assert texts(row["parts"], learned=False)[1:] == ["", ""]
    _, chosen, rejected = texts(row["parts"], learned=True)
    assert "####" in chosen
    assert rejected.startswith("####")
    assert chosen != rejected


def test_a_row_without_room_for_its_answer_is_told(claim: Path) -> None:
    result = preview(claim, "--rows", "1", training={"maxLength": 8})
    assert result.exit_code == 0, result.stderr
    assert "nothing of its answer is left within training.maxLength; the row is dropped" in result.stdout


@pytest.mark.parametrize(
    ("spec", "status", "message"),
    [
        (
            {"dataset": {"uri": "pvc://data/train.jsonl", "columns": {"prompt": "problem", "completion": "sol"}}},
            1,
            "spec.dataset.columns.completion: train.jsonl:1 has no column 'sol'",
        ),
        ({"dataset": {"uri": "pvc://data/none.jsonl"}}, 1, "spec.dataset: nothing is at pvc://data/none.jsonl"),
        ({"dataset": {"uri": "pvc://data/train.jsonl", "format": "chatml"}}, 3, "spec.dataset.format"),
    ],
    ids=["column", "place", "format"],
)
def test_what_cannot_be_shown_is_told_by_field(claim: Path, spec: dict[str, Any], status: int, message: str) -> None:
    result = preview(claim, **spec)
    assert result.exit_code == status
    assert message in result.stderr


def test_an_artifact_that_is_not_there_yet_is_named(claim: Path) -> None:
    manifests = claim.parent / "both.yaml"
    filtered = {"source": {"uri": "pvc://data/train.jsonl"}, "byLabel": {"column": "pass_rate", "max": 1}}
    objects = [
        {"kind": "FilterJob", "metadata": {"name": "hard"}, "spec": filtered},
        {
            "kind": "FineTuneJob",
            "metadata": {"name": "sft"},
            "spec": {"model": MODEL, "dataset": {"from": "FilterJob/hard"}},
        },
    ]
    text = "\n---\n".join(json.dumps({"apiVersion": "posttrain.dev/v1alpha1", **obj}) for obj in objects)
    manifests.write_text(text, encoding="utf-8")
    arguments = ["preview", str(manifests), "--claim", f"data={claim}", "--workspace", str(claim.parent / "w")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "spec.dataset.from: FilterJob/hard has published nothing in" in result.stderr


def test_what_is_on_the_hub_is_shown_without_fetching_weights(
    tiny_inputs: Path, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with stand_in_hub() as hub:
        for kind, name, folder in (("model", "acme/base", tiny_inputs / "base-model"), ("dataset", "acme/rows", claim)):
            repository = hub.repositories[kind, name] = Repository(private=False)
            files = {path.name: File(path.read_bytes(), lfs=False) for path in folder.iterdir() if path.is_file()}
            repository.commit("main", files)
        dataset = {"uri": "hf://datasets/acme/rows@main/train.jsonl", "columns": COLUMNS}
        model = {"uri": "hf://acme/base"}
        shown = preview(claim, "--rows", "1", "--json", "--hub", hub.url, model=model, dataset=dataset)
        fetched = hub.count(r"^GET .*safetensors")
    assert shown.exit_code == 0, shown.stderr
    (row,) = json.loads(shown.stdout)["FineTuneJob/sft"]
    assert row["place"] == "train.jsonl:1"
    assert fetched == 0
