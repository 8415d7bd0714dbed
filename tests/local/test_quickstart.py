"""The main job: four objects take a tiny model from raw data to a published folder."""

import re
import time

import pytest
from support.pipeline import Pipeline


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
    pipeline.assert_nothing_is_left_over()
    _assert_nothing_to_do(pipeline)


def _assert_nothing_to_do(pipeline: Pipeline) -> None:
    before = pipeline.objects
    started = time.monotonic()
    assert pipeline.run(seconds=30) == 0
    assert time.monotonic() - started < 3
    assert "nothing to do" in pipeline.messages
    assert pipeline.objects == before
    pipeline.assert_no_process_is_left(seconds=1)
