"""The main job, whatever happens on the way: interrupts, kills, a dead server; and gangs."""

import json
import random
import signal
import time
from collections.abc import Callable

import pytest
from support.pipeline import Pipeline, command_line, kill_at
from support.waiting import wait_for

INTERRUPTS: tuple[tuple[str, Callable[[Pipeline], bool]], ...] = (
    ("FilterJob", lambda pipeline: pipeline.status("FilterJob").get("phase") in ("Running", "Succeeded")),
    ("FineTuneJob", lambda pipeline: pipeline.step("FineTuneJob") >= 20),
    ("RLJob", lambda pipeline: pipeline.status("RLJob").get("phase") == "Starting"),
    ("RLJob", lambda pipeline: pipeline.step("RLJob") >= 5),
    ("UploadJob", lambda pipeline: pipeline.status("UploadJob").get("phase") in ("Starting", "Running", "Succeeded")),
)
"""Where the run is interrupted: the object, and when."""


@pytest.mark.timeout(1800)
def test_an_interrupt_in_any_stage_saves_and_the_same_command_goes_on(pipeline: Pipeline) -> None:
    pipeline.shorten(sft_steps=150, rl_steps=12)
    for kind, moment in INTERRUPTS:
        pipeline.start()
        wait_for(lambda: moment(pipeline) or pipeline.ended, f"the moment in {kind}", seconds=400)  # noqa: B023
        pipeline.signal(signal.SIGINT)
        assert pipeline.wait(seconds=60) in (130, 0), f"{kind}: {pipeline.messages[-4000:]}"
        pipeline.assert_no_process_is_left(seconds=1)
    assert pipeline.run(seconds=300) == 0, pipeline.messages[-4000:]
    outcomes = {kind: [a["outcome"] for a in pipeline.status(kind)["attempts"]] for kind in pipeline.objects}
    assert outcomes["FineTuneJob"] == ["Suspended", "Succeeded"]
    assert outcomes["RLJob"] == ["Suspended", "Suspended", "Succeeded"]
    assert pipeline.status("FineTuneJob")["attempts"][1]["resumedFrom"].startswith("checkpoint-")
    assert pipeline.status("RLJob")["attempts"][2]["resumedFrom"].startswith("checkpoint-")
    assert len(pipeline.run_folders()) == 4, "nothing began anew"
    pipeline.assert_artifacts_are_whole()
    pipeline.assert_nothing_is_left_over()


@pytest.mark.timeout(600)
def test_a_second_interrupt_ends_everything_at_once(pipeline: Pipeline) -> None:
    pipeline.shorten(sft_steps=1500, rl_steps=4)
    pipeline.start()
    wait_for(lambda: pipeline.step("FineTuneJob") >= 5 or pipeline.ended, "training", seconds=300)
    pipeline.signal(signal.SIGINT)
    wait_for(lambda: "interrupt again" in pipeline.messages, "the first interrupt's answer", seconds=10)
    pipeline.signal(signal.SIGINT)
    assert pipeline.wait(seconds=10) == 130
    pipeline.assert_no_process_is_left(seconds=1)


@pytest.mark.timeout(900)
def test_a_dead_vllm_server_costs_an_attempt_and_not_the_run(pipeline: Pipeline) -> None:
    pipeline.shorten(sft_steps=20, rl_steps=12)
    pipeline.start()
    wait_for(lambda: pipeline.step("RLJob") >= 4 or pipeline.ended, "reinforcement learning", seconds=400)
    _kill_server(pipeline)
    assert pipeline.wait(seconds=300) == 0, pipeline.messages[-4000:]
    attempts = pipeline.status("RLJob")["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["Failed", "Succeeded"]
    assert attempts[0]["exitCode"] == 146
    assert "spec.rollout" in attempts[0]["message"]
    assert attempts[1]["resumedFrom"].startswith("checkpoint-")


def _kill_server(pipeline: Pipeline) -> None:
    servers = [process for process in pipeline.processes() if "vllm.entrypoints" in command_line(process)]
    assert servers, pipeline.messages[-4000:]
    servers[0].kill()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("gang", [{"processesPerNode": 2}, {"nodes": 2}], ids=["two processes", "two pods"])
def test_a_gang_of_two_trains_together(pipeline: Pipeline, gang: dict[str, int]) -> None:
    pipeline.shorten(sft_steps=4, rl_steps=4)
    pipeline.keep("1-filter.yaml", "2-finetune.yaml")
    pipeline.change("2-finetune.yaml", distributed=gang)
    assert pipeline.run(seconds=400) == 0, pipeline.messages[-4000:]
    assert pipeline.status("FineTuneJob")["metrics"]["steps"] == 4
    (checkpoint,) = (pipeline.claim / "default" / "finetunejob").glob("*/checkpoints/checkpoint-4/_COMPLETE.json")
    assert json.loads(checkpoint.read_text())["worldSize"] == 2
    pods = list((pipeline.folder / ".posttrain" / "logs").glob("finetunejob-*/*.log"))
    assert len(pods) == gang.get("nodes", 1)
    pipeline.assert_nothing_is_left_over()


@pytest.mark.timeout(900)
def test_three_kills_at_random_moments_do_no_harm(pipeline: Pipeline) -> None:
    _kill_and_finish(pipeline, seed=int(time.time()), count=3)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_twenty_kills_at_random_moments_do_no_harm(pipeline: Pipeline) -> None:
    _kill_and_finish(pipeline, seed=20, count=20)


def _kill_and_finish(pipeline: Pipeline, *, seed: int, count: int) -> None:
    """Kills the command so many times; a pipeline that was finished before the moment begins anew."""
    pipeline.shorten(sft_steps=40, rl_steps=4)
    source, killed = random.Random(seed), 0
    while killed < count:
        if kill_at(pipeline, source.uniform(0.2, 45)):
            killed += 1
        else:
            _assert_finished(pipeline, seed)
            pipeline.begin_anew()
        pipeline.assert_no_process_is_left(seconds=10)
        pipeline.assert_artifacts_are_whole()
    assert pipeline.run(seconds=400) == 0, f"seed {seed}: {pipeline.messages[-4000:]}"
    _assert_finished(pipeline, seed)


def _assert_finished(pipeline: Pipeline, seed: int) -> None:
    phases = {kind: pipeline.status(kind)["phase"] for kind in pipeline.objects}
    kinds = ("FilterJob", "FineTuneJob", "RLJob", "UploadJob")
    assert phases == dict.fromkeys(kinds, "Succeeded"), f"seed {seed}: {pipeline.messages[-4000:]}"
    assert pipeline.assert_artifacts_are_whole() == 4
    pipeline.assert_nothing_is_left_over()
