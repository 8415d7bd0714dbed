"""What is said at the end of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posttrain.stages import Stage, exact_match_scores, read_stage
from posttrain.summary import document, failure, last_lines, pick_log, summary

Json = dict[str, Any]
MakeObject = Callable[..., Json]


def stages_of(objects: list[Json], root: Path) -> list[Stage]:
    return [read_stage(obj, root / obj["metadata"]["name"]) for obj in objects]


def test_the_table_scores_and_places(pipeline: list[Json], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = summary(stages_of(pipeline, Path("runs")), report=Path(".posttrain/report.html"))
    assert text == (
        "STAGE            PHASE      TIME    ROWS KEPT       LOSS            REWARD  EXACT MATCH\n"
        "FilterJob/hard   Succeeded  1m 15s  1,200 of 3,000\n"
        "FineTuneJob/sft  Succeeded  1m 15s                  5.500 -> 0.031          0.000 -> 0.452\n"
        "RLJob/grpo       Succeeded  1m 15s                                  0.930   0.452 -> 0.940\n"
        "\n"
        "Held-out exact match\n"
        "  before training        0.000\n"
        "  after FineTuneJob/sft  0.452\n"
        "  after RLJob/grpo       0.940\n"
        "\n"
        "Where it is\n"
        "  FilterJob/hard   runs/hard/artifact\n"
        "  FineTuneJob/sft  runs/sft/artifact\n"
        "  RLJob/grpo       runs/grpo/artifact\n"
        "  Report           .posttrain/report.html"
    )


def test_figures_without_a_column_of_their_own_are_shown_too(make_object: MakeObject, tmp_path: Path) -> None:
    upload = make_object("UploadJob/out", "Succeeded", metrics={"filesUploaded": 7, "megabytes": 1.25})
    text = summary(stages_of([upload], tmp_path), report=None)
    assert text == "STAGE          PHASE      FIGURES\nUploadJob/out  Succeeded  filesUploaded 7, megabytes 1.25"


def test_scores_of_separate_beginnings_say_which_stage_they_precede(make_object: MakeObject, tmp_path: Path) -> None:
    jobs = [
        make_object(f"RLJob/{name}", "Succeeded", metrics={"exactMatchBefore": 0.1, "exactMatch": 0.5})
        for name in ("a", "b")
    ]
    labels = [score.label for score in exact_match_scores(stages_of(jobs, tmp_path))]
    assert labels == ["before RLJob/a", "after RLJob/a", "before RLJob/b", "after RLJob/b"]


def test_a_failed_stage_shows_why_and_the_end_of_its_log(make_object: MakeObject, tmp_path: Path) -> None:
    log = tmp_path / "sft-finetune-1-0.log"
    log.write_text("".join(f"line {n}\n" for n in range(1, 31)))
    obj = make_object("FineTuneJob/sft", "Failed", reason="MissingColumn", message="there is no column solution")
    lines = failure(read_stage(obj, tmp_path), log).splitlines()
    assert lines[0] == "FineTuneJob/sft failed: MissingColumn: there is no column solution"
    assert lines[1] == f"The last lines of {log}:"
    assert lines[2:] == [f"  | line {n}" for n in range(11, 31)]


def test_a_stage_that_only_waits_has_no_log(make_object: MakeObject, tmp_path: Path) -> None:
    obj = make_object("RLJob/x", "Waiting", reason="InputFailed", message="FineTuneJob/sft failed: x")
    assert failure(read_stage(obj, tmp_path), None) == "RLJob/x waiting: InputFailed: FineTuneJob/sft failed: x"


@pytest.mark.parametrize(("reason", "log"), [("DataError", "x-rl-2-0.log"), ("ServerLost", "x-serve-2-0.log")])
def test_the_log_to_look_at_is_that_of_the_pod_to_blame(
    make_object: MakeObject, tmp_path: Path, reason: str, log: str
) -> None:
    stage = read_stage(make_object("RLJob/x", "Failed", reason=reason), tmp_path)
    logs = [Path(f"x-{role}-{attempt}-0.log") for attempt in (1, 2) for role in ("rl", "serve")]
    assert pick_log(stage, logs) == Path(log)
    assert pick_log(stage, []) is None


def test_the_end_of_a_long_log_is_read_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    log = tmp_path / "long.log"
    log.write_bytes(b"x" * 200_000 + b"\n\xff\nend\n")
    assert last_lines(log, 2) == ["\ufffd", "end"]
    assert last_lines(tmp_path / "missing.log") == []


def test_the_same_for_machines(pipeline: list[Json], tmp_path: Path) -> None:
    answer = document(stages_of(pipeline, tmp_path), outcome="Succeeded", report=tmp_path / "report.html")
    assert answer["outcome"] == "Succeeded"
    assert answer["report"] == str(tmp_path / "report.html")
    assert answer["exactMatch"][-1] == {"label": "after RLJob/grpo", "value": 0.94}
    assert answer["objects"][0] == {
        "kind": "FilterJob",
        "namespace": "default",
        "name": "hard",
        "phase": "Succeeded",
        "reason": "Succeeded",
        "message": "",
        "attempts": 0,
        "metrics": {"rowsRead": 3000, "rowsKept": 1200, "keptPercent": 40.0},
        "artifact": {
            "uri": "pvc://posttrain/x",
            "digest": "ab" * 32,
            "type": "dataset",
            "bytes": 4096,
            "rows": 1200,
            "path": str(tmp_path / "hard" / "artifact"),
        },
    }
