"""What a run may train on: the same rows in each attempt, and an override that can be merged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_contract.distributed import Distributed
from posttrain_contract.exit_codes import ExitCode
from posttrain_finetune.data import prepared_rows
from posttrain_finetune.sharding import check_override
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_training.preparation.templates import TEMPLATES
from support.tiny import context_in_process, finetune_config, write_jsonl
from support.tiny_tokenizer import save_tokenizer

ROWS = [{"prompt": f"What is {number}?", "completion": f"It is {number}."} for number in range(10)]


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext[Any]:
    """The first attempt of a run, which has prepared its rows."""
    for name in ("PET_NNODES", "PET_NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    save_tokenizer(tmp_path / "model", template=TEMPLATES["chatml"])
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    dataset = {"uri": "pvc://posttrain/any", "validation": 0.2}
    evaluation = {"perplexity": True}
    config = finetune_config(
        steps=1, model_path="model", dataset_path="rows.jsonl", dataset=dataset, evaluation=evaluation
    )
    context = context_in_process(config, tmp_path)
    assert (prepared_rows(context).train / "part-00000.arrow").is_file()
    return context


def second(first: StageContext[Any]) -> StageContext[Any]:
    run = first.config.run.model_copy(update={"attempt": 2})
    return replace(first, config=first.config.model_copy(update={"run": run}))


def change_a_row(root: Path) -> None:
    write_jsonl(root / "rows.jsonl", [{**ROWS[0], "completion": "It is nothing."}, *ROWS[1:]])


def test_the_next_attempt_has_the_same_rows(first: StageContext[Any]) -> None:
    (first.folder / layout.CHECKPOINTS).mkdir()
    assert prepared_rows(second(first)) == prepared_rows(first)


def test_rows_that_changed_after_a_checkpoint_are_refused(tmp_path: Path, first: StageContext[Any]) -> None:
    (first.folder / layout.CHECKPOINTS).mkdir()
    before = (first.folder / layout.PREPARED_KEY).read_bytes()
    change_a_row(tmp_path)
    for _ in range(2):
        with pytest.raises(StageError) as caught:
            prepared_rows(second(first))
        assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "DataChanged")
        assert caught.value.message.startswith("spec.dataset: ")
        assert (first.folder / layout.PREPARED_KEY).read_bytes() == before, "what it was trained on is still known"


def test_rows_that_changed_before_anything_was_learned_are_taken(tmp_path: Path, first: StageContext[Any]) -> None:
    old = prepared_rows(first)
    change_a_row(tmp_path)
    assert prepared_rows(second(first)) != old


@pytest.mark.parametrize("override", ["{x}", '{"a": }', '{"a": 1} {"b": 2}'])
def test_an_override_that_is_no_json_object_is_told(override: str) -> None:
    distributed = Distributed.parse({"nodes": 2, "strategy": "zero2", "override": override})
    with pytest.raises(StageError) as caught:
        check_override(distributed)
    assert (caught.value.code, caught.value.reason) == (ExitCode.USAGE, "InvalidOverride")
    assert caught.value.message.startswith("spec.distributed.override: ")
    assert caught.value.message.endswith("; write a JSON object")


@pytest.mark.parametrize("override", [None, "{}", '{"zero_optimization": {"stage": 2}}'])
def test_an_override_that_is_one_is_let_through(override: str | None) -> None:
    check_override(Distributed.parse({"nodes": 2, "strategy": "zero2", **({"override": override} if override else {})}))
