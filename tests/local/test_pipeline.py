"""The main job: four objects take a tiny model from raw data to a published folder, whatever happens on the way."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from posttrain_contract import layout
from support.pipeline import Pipeline, kill_at, moments
from support.waiting import wait_for


@pytest.fixture
def pipeline(tmp_path: Path, quickstart_inputs: Path) -> Pipeline:
    return Pipeline(tmp_path, quickstart_inputs)


@pytest.mark.timeout(900)
def test_the_quickstart_teaches_the_model_and_publishes_it(pipeline: Pipeline) -> None:
    assert pipeline.run(seconds=800) == 0, pipeline.messages[-4000:]
    after_sft = pipeline.status("FineTuneJob")["metrics"]
    after_rl = pipeline.status("RLJob")["metrics"]
    assert pipeline.status("FilterJob")["metrics"]["rowsKept"] == 4000
    assert after_sft["exactMatchBefore"] == 0
    assert after_rl["exactMatch"] >= 0.75
    assert after_rl["exactMatch"] >= after_sft["exactMatch"] + 0.25
    assert after_rl["samplingLogpDifference"] < 1e-5, "the servers sampled with other weights than were trained"
    assert after_rl["weightVersion"] == 59, "weights go to the servers before each of the 60 steps"
    assert pipeline.assert_artifacts_are_whole() == 4
    published = pipeline.claim / "default" / "uploadjob"
    assert len(list(published.glob("*/artifact/models/quickstart/addition-qwen3/model.safetensors"))) == 1
    assert len(list(published.glob("*/artifact/datasets/quickstart/hard-additions/data/*.parquet"))) == 1
    report = (pipeline.folder / ".posttrain" / "report.html").read_text()
    assert "<svg" in report
    assert not re.search(r"(src|href)=\"https?:", report), "the report must be readable without a network"
    assert "4,000 of 6,000" in pipeline.output
    _assert_nothing_to_do(pipeline)


def _assert_nothing_to_do(pipeline: Pipeline) -> None:
    before = pipeline.objects
    started = time.monotonic()
    assert pipeline.run(seconds=30) == 0
    assert time.monotonic() - started < 3
    assert "nothing to do" in pipeline.messages
    assert pipeline.objects == before
    pipeline.assert_no_process_is_left(seconds=1)


@pytest.mark.timeout(600)
def test_an_interrupt_saves_and_the_same_command_goes_on(pipeline: Pipeline) -> None:
    pipeline.shorten(sft_steps=150, rl_steps=12)
    pipeline.start()
    wait_for(lambda: pipeline.step("FineTuneJob") >= 20 or pipeline.ended, "training", seconds=120)
    pipeline.signal(signal.SIGINT)
    assert pipeline.wait(seconds=60) == 130
    pipeline.assert_no_process_is_left(seconds=1)
    interrupted = pipeline.status("FineTuneJob")["attempts"]
    assert [attempt["outcome"] for attempt in interrupted] == ["Suspended"]
    filtered = pipeline.objects["FilterJob"]

    pipeline.start()
    wait_for(lambda: pipeline.step("RLJob") >= 2 or pipeline.ended, "reinforcement learning", seconds=300)
    _kill_server(pipeline)
    assert pipeline.wait(seconds=300) == 0, pipeline.messages[-4000:]

    assert pipeline.objects["FilterJob"] == filtered, "a finished stage must not run again"
    resumed = pipeline.status("FineTuneJob")["attempts"]
    assert [attempt["outcome"] for attempt in resumed] == ["Suspended", "Succeeded"]
    assert resumed[1]["resumedFrom"].startswith("checkpoint-")
    assert [attempt["outcome"] for attempt in pipeline.status("RLJob")["attempts"]] == ["Failed", "Succeeded"]
    assert pipeline.status("RLJob")["attempts"][0]["exitCode"] == 146
    assert pipeline.assert_artifacts_are_whole() == 4


def _kill_server(pipeline: Pipeline) -> None:
    servers = [p for p in pipeline.processes() if "vllm.entrypoints" in " ".join(p.cmdline())]
    assert servers
    servers[0].kill()


@pytest.mark.timeout(900)
def test_three_kills_at_random_moments_do_no_harm(pipeline: Pipeline) -> None:
    _kill_and_finish(pipeline, seed=int(time.time()), count=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments_do_no_harm(pipeline: Pipeline) -> None:
    _kill_and_finish(pipeline, seed=20, count=20)


def _kill_and_finish(pipeline: Pipeline, *, seed: int, count: int) -> None:
    pipeline.shorten(sft_steps=40, rl_steps=4)
    for moment in moments(seed, count=count, longest=45):
        killed = kill_at(pipeline, moment)
        pipeline.assert_no_process_is_left(seconds=10)
        pipeline.assert_artifacts_are_whole()
        if not killed:
            break
    assert pipeline.run(seconds=400) == 0, f"seed {seed}: {pipeline.messages[-4000:]}"
    assert {kind: pipeline.status(kind)["phase"] for kind in pipeline.objects} == dict.fromkeys(
        ("FilterJob", "FineTuneJob", "RLJob", "UploadJob"), "Succeeded"
    ), f"seed {seed}"
    assert pipeline.assert_artifacts_are_whole() == 4
    leftovers = [p for p in pipeline.claim.rglob(".*") if p.name.startswith((".staging", f".{layout.ARTIFACT}"))]
    assert not leftovers, f"seed {seed}: {json.dumps([str(p) for p in leftovers])}"
