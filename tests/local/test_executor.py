"""The local executor over the filter stage: real processes, the operator's own loop."""

import asyncio
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from posttrain.local.addresses import Addresses
from posttrain.local.kubelet import _environment
from posttrain.local.mounts import MountError
from posttrain.local.session import run_local
from posttrain.local.workspace import LocalOptions, WorkspaceBusyError, WorkspaceLock, pod_logs, run_folder
from posttrain_contract import layout
from support.hub import File, Repository, stand_in_hub

Json = dict[str, Any]


def rows(count: int) -> str:
    return "".join(json.dumps({"id": i, "score": i / count}) + "\n" for i in range(count))


@pytest.fixture
def options(tmp_path: Path) -> LocalOptions:
    """A workspace whose claim holds 100 rows, half of them with a score below 0.5."""
    options = LocalOptions(workspace=tmp_path / "workspace")
    data = options.claim("posttrain") / "data"
    data.mkdir(parents=True)
    (data / "rows.jsonl").write_text(rows(100))
    return options


def filter_job(name: str = "small", **changes: Any) -> Json:
    spec = {"source": {"uri": "pvc://posttrain/data"}, "byLabel": {"column": "score", "max": 0.495}, **changes}
    return {"apiVersion": "posttrain.dev/v1alpha1", "kind": "FilterJob", "metadata": {"name": name}, "spec": spec}


class Run:
    """One local run, and what it said."""

    def __init__(self, options: LocalOptions, *objects: Json) -> None:
        self.said: list[str] = []
        self.seen: list[Json] = []
        self.objects = asyncio.run(run_local(objects, options, watch=self._watch, say=self.said.append))

    def _watch(self, objects: Sequence[Json]) -> None:
        self.seen.extend(objects)

    @property
    def status(self) -> Json:
        status: Json = self.objects[0]["status"]
        return status

    @property
    def reason(self) -> str:
        return next(str(c["reason"]) for c in self.status["conditions"] if c["type"] == "Ready")

    @property
    def message(self) -> str:
        return next(str(c["message"]) for c in self.status["conditions"] if c["type"] == "Ready")


def test_an_object_runs_to_its_artifact(options: LocalOptions) -> None:
    run = Run(options, filter_job())
    assert run.status["phase"] == "Succeeded"
    assert run.status["metrics"]["rowsKept"] == 50
    folder = run_folder(run.objects[0], options)
    assert len((folder / layout.ARTIFACT / "part-00000.jsonl").read_text().splitlines()) == 50
    assert json.loads((folder / layout.MANIFEST).read_text())["digest"] == run.status["artifact"]["digest"]
    assert pod_logs(run.objects[0], options)


def test_workers_share_the_source_and_make_the_same_artifact(options: LocalOptions) -> None:
    alone = Run(options, filter_job("alone"))
    shared = Run(options, filter_job("shared", parallelism=3))
    assert shared.status["artifact"]["digest"] == alone.status["artifact"]["digest"]


def test_a_finished_object_is_not_run_again(options: LocalOptions) -> None:
    first = Run(options, filter_job())
    second = Run(options, filter_job())
    assert second.objects == first.objects
    assert second.said == ["FilterJob/small: nothing to do, its artifact is published"]


def test_settings_of_the_run_may_change_without_a_new_run(options: LocalOptions) -> None:
    first = Run(options, filter_job())
    second = Run(options, filter_job(run={"retries": 7}))
    assert second.objects[0]["metadata"]["uid"] == first.objects[0]["metadata"]["uid"]


def test_a_changed_specification_begins_anew_and_keeps_the_old_artifact(options: LocalOptions) -> None:
    first = Run(options, filter_job())
    second = Run(options, filter_job(byLabel={"column": "score", "max": 0.2}))
    assert second.status["metrics"]["rowsKept"] == 21
    assert run_folder(first.objects[0], options) != run_folder(second.objects[0], options)
    assert (run_folder(first.objects[0], options) / layout.MANIFEST).exists()


def test_changed_input_begins_anew(options: LocalOptions) -> None:
    Run(options, filter_job())
    (options.claim("posttrain") / "data" / "rows.jsonl").write_text(rows(200))
    assert Run(options, filter_job()).status["metrics"]["rowsRead"] == 200


def test_a_changed_object_makes_its_readers_begin_anew(options: LocalOptions) -> None:
    reader = filter_job("reader", source={"from": "FilterJob/small"}, byLabel={"column": "score", "min": 0.1})
    first = Run(options, reader, filter_job())
    second = Run(options, reader, filter_job(byLabel={"column": "score", "max": 0.2}))
    kept = [{o["metadata"]["name"]: o["status"]["metrics"]["rowsKept"] for o in run.objects} for run in (first, second)]
    assert kept == [{"small": 50, "reader": 40}, {"small": 21, "reader": 11}]


@pytest.mark.parametrize("harm", ["remove", "truncate"])
def test_a_damaged_artifact_is_made_again(options: LocalOptions, harm: str) -> None:
    first = Run(options, filter_job())
    folder = run_folder(first.objects[0], options)
    if harm == "remove":
        shutil.rmtree(folder)
    else:
        os.truncate(folder / layout.ARTIFACT / "part-00000.jsonl", 10)
    second = Run(options, filter_job())
    assert second.status["artifact"] == first.status["artifact"]
    assert "made again" in second.said[0]


def test_a_failed_object_is_tried_again_by_the_next_run(options: LocalOptions) -> None:
    shard = options.claim("posttrain") / "data" / "rows.jsonl"
    good = shard.read_text()
    shard.write_text(good + "no json\n")
    failed = Run(options, filter_job())
    assert (failed.status["phase"], len(failed.status["attempts"])) == ("Failed", 1)
    assert "rows.jsonl:101" in failed.message
    again = Run(options, filter_job())
    assert again.said == ["FilterJob/small: it failed before and is tried again"]
    shard.write_text(good)
    assert Run(options, filter_job()).status["phase"] == "Succeeded"


def test_a_failed_object_stalls_its_readers_with_the_cause(options: LocalOptions) -> None:
    reader = filter_job("reader", source={"from": "FilterJob/small"})
    run = Run(options, reader, filter_job(byLabel={"column": "scores", "max": 1}))
    by_name = {o["metadata"]["name"]: o["status"] for o in run.objects}
    stalled = next(c for c in by_name["reader"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InputFailed")
    assert "FilterJob/small failed" in stalled["message"]
    assert "id, score" in stalled["message"]


def test_a_cycle_is_refused_by_name(options: LocalOptions) -> None:
    one = filter_job("one", source={"from": "FilterJob/two"})
    two = filter_job("two", source={"from": "FilterJob/one"})
    run = Run(options, one, two)
    assert run.reason == "InvalidSpec"
    assert "FilterJob/one -> FilterJob/two -> FilterJob/one" in run.message


def test_an_input_on_the_hub_is_fetched_and_its_commit_told(
    options: LocalOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with stand_in_hub(token="a-token") as hub:
        repository = hub.repositories["dataset", "acme/rows"] = Repository(private=True)
        commit = repository.commit("main", {"train.jsonl": File(rows(100).encode(), lfs=False)})
        there = dataclasses.replace(options, hub_endpoint=hub.url)
        job = filter_job(source={"uri": "hf://datasets/acme/rows"}, run={"secrets": {"huggingFace": "hf-token"}})
        run = Run(there, job)
    assert run.status["phase"] == "Succeeded", run.message
    assert run.status["inputs"]["source"] == {"uri": "hf://datasets/acme/rows", "revision": commit}
    assert run.status["metrics"]["rowsKept"] == 50


def test_a_claim_that_is_named_must_exist(tmp_path: Path) -> None:
    options = LocalOptions(workspace=tmp_path / "workspace", claims={"posttrain": tmp_path / "nowhere"})
    run = Run(options, filter_job())
    assert run.status["attempts"][0]["reason"] == "MountFailed"
    assert "claim posttrain" in run.message
    assert "--claim posttrain=DIR" in run.message


def test_a_missing_input_names_the_field_and_what_is_there(options: LocalOptions) -> None:
    run = Run(options, filter_job(source={"uri": "pvc://posttrain/dato"}))
    assert run.reason == "InputMissing"
    assert run.message.startswith("spec.source: ")
    assert "data" in run.message


def test_a_taken_port_is_told_by_its_number(options: LocalOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.local.addresses._TRIES", 1)  # one address only, so there is nowhere to go
    address = Addresses(options.workspace).of("any")
    server = ThreadingHTTPServer((address, layout.TELEMETRY_PORT), BaseHTTPRequestHandler)
    try:
        run = Run(options, filter_job(run={"retries": 0}))
    finally:
        server.server_close()
    assert run.reason == "PortTaken"
    assert str(layout.TELEMETRY_PORT) in run.message


def test_a_second_run_in_the_same_workspace_waits_and_then_gives_up(
    options: LocalOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttrain.local.workspace._LOCK_TIMEOUT", 1.0)

    async def hold_and_run() -> None:
        lock = WorkspaceLock(options)
        await lock.acquire(print)
        try:
            await run_local([filter_job()], options, watch=lambda _: None, say=lambda _: None)
        finally:
            lock.release()

    with pytest.raises(WorkspaceBusyError, match="--workspace"):
        asyncio.run(hold_and_run())


def test_progress_comes_from_the_stages_own_endpoint(options: LocalOptions) -> None:
    (options.claim("posttrain") / "data" / "rows.jsonl").write_text(rows(400_000))
    run = Run(options, filter_job())
    phases = {o["status"]["progress"]["phase"] for o in run.seen if "progress" in o["status"]}
    assert "filtering" in phases


def test_a_workspace_that_cannot_be_written_fails_the_pod_and_not_the_command(options: LocalOptions) -> None:
    (options.workspace / "logs").write_text("a file where the folder of logs should be")
    run = Run(options, filter_job(run={"retries": 0}))
    assert run.reason == "MountFailed"
    assert "logs" in run.message
    assert "--workspace" in run.message


def test_a_pod_gets_a_token_only_if_its_template_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    wanted = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert "HF_TOKEN" not in _environment([], ip="127.0.0.1", scratch="/tmp")
    assert _environment([wanted], ip="127.0.0.1", scratch="/tmp")["HF_TOKEN"] == "hf_canary"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(MountError, match="HF_TOKEN"):
        _environment([wanted], ip="127.0.0.1", scratch="/tmp")


def test_every_pod_has_an_address_of_its_own(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path)
    given = {addresses.of(f"pod-{number}") for number in range(600)}
    assert len(given) == 600
    assert addresses.of("pod-5") == addresses.of("pod-5")
