"""The end of training processes: the first cause wins, a stop request is a preemption, and silence has a name too."""

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posttrain_contract.artifact import ArtifactType
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.filter import FilterSpec
from posttrain_contract.stage import FilterStage
from posttrain_runtime import ranks
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.errors import Preempted, StageError
from posttrain_runtime.progress import ProgressReporter
from posttrain_runtime.ranks import RankOutcome
from posttrain_runtime.store import Staged
from support.stages import run_facts
from support.waiting import wait_for

STAGING = Path("staging")
TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _a_gang_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PET_NNODES", "PET_NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


def ended(rank: int, code: ExitCode = ExitCode.DONE, *, time: float = 0, **values: Any) -> RankOutcome:
    """How a rank ended."""
    return RankOutcome(rank=rank, time=time, exit_code=code, reason=code.name, message=f"rank {rank}", **values)


def conclude(*outcomes: RankOutcome, status: int, asked: bool = False) -> Finished:
    """What the supervisor makes of it."""
    return ranks._conclude(outcomes, status, asked=asked, staging=STAGING)


def cause(*outcomes: RankOutcome, status: int, asked: bool = False) -> StageError:
    """The failure that it makes of it."""
    with pytest.raises(StageError) as caught:
        conclude(*outcomes, status=status, asked=asked)
    return caught.value


def preemption(*outcomes: RankOutcome, status: int, asked: bool) -> Preempted:
    """The preemption that it makes of it."""
    with pytest.raises(Preempted) as caught:
        conclude(*outcomes, status=status, asked=asked)
    return caught.value


@pytest.mark.parametrize("kind", ["model", None])
def test_the_leading_rank_tells_what_came_of_it(kind: ArtifactType | None) -> None:
    leader = ended(0, metrics={"loss": 0.5}, staged=kind, parameters=3, resumed_from="checkpoint-2")
    staged = None if kind is None else Staged(STAGING, kind, parameters=3)
    expected = Finished({"loss": 0.5}, staged, "checkpoint-2", "rank 0")
    assert conclude(ended(1, metrics={"loss": 9.0}), leader, status=0) == expected


def test_a_pod_without_the_leading_rank_stages_nothing() -> None:
    assert conclude(ended(2, staged="model"), ended(3, staged="model"), status=0).staged is None


def test_the_first_failure_is_the_cause() -> None:
    failure = cause(ended(0, ExitCode.DIVERGED, time=3), ended(1, ExitCode.OUT_OF_MEMORY, time=2), ended(2), status=1)
    assert (failure.code, failure.reason, failure.message) == (ExitCode.OUT_OF_MEMORY, "OUT_OF_MEMORY", "rank 1")


def test_whoever_lost_a_peer_is_not_the_cause_unless_there_is_no_other() -> None:
    lost, later = ended(0, ExitCode.PEER_LOST, time=1), ended(1, ExitCode.DATA, time=2)
    assert cause(lost, later, status=1).code is ExitCode.DATA
    assert cause(lost, status=1).code is ExitCode.PEER_LOST


@pytest.mark.parametrize(("code", "saved"), [(ExitCode.PREEMPTED, True), (ExitCode.PREEMPTED_UNSAVED, False)])
def test_a_rank_that_stopped_on_request_is_a_preemption(code: ExitCode, saved: bool) -> None:
    stopped = preemption(ended(0, code, step=7), status=1, asked=True)
    assert (stopped.saved, stopped.step) == (saved, 7)


def test_who_fails_because_others_stopped_on_request_is_no_cause() -> None:
    stopped = preemption(ended(0, ExitCode.PREEMPTED, time=2), ended(1, ExitCode.DATA, time=1), status=1, asked=True)
    assert stopped.saved


def test_a_failure_on_the_way_to_a_stop_is_told() -> None:
    assert cause(ended(0, ExitCode.STORAGE), status=1, asked=True).code is ExitCode.STORAGE


def test_processes_that_a_stop_request_ended_before_they_could_answer_are_preempted() -> None:
    assert not preemption(status=-15, asked=True).saved


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (-9, ExitCode.KILLED),
        (-11, ExitCode.SEGFAULT),
        (-6, ExitCode.ABORTED),
        (137, ExitCode.KILLED),
        (-7, ExitCode.KILLED),
    ],
)
def test_a_process_that_a_signal_ended_can_be_tried_again(status: int, code: ExitCode) -> None:
    failure = cause(status=status)
    assert (failure.code, failure.reason) == (code, "ProcessDied")
    assert failure.code.retriable
    assert str(status) in failure.message


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_single_process_that_ends_by_itself_without_a_result_fails_again(status: int) -> None:
    failure = cause(status=status)
    assert (failure.code, failure.reason) == (ExitCode.UNHANDLED, "ProcessFailed")
    assert not failure.code.retriable
    assert f"status {status}" in failure.message


def test_of_a_gang_without_results_nobody_knows_so_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    assert cause(status=1).code is ExitCode.KILLED


@pytest.fixture
def context(tmp_path: Path) -> StageContext[FilterStage]:
    """A stage's context with a configuration on disk."""
    spec = FilterSpec.parse({"source": {"uri": "pvc://a/b"}, "byLabel": {"column": "rate", "max": 1}})
    config = FilterStage(run=run_facts("FilterJob"), spec=spec)
    path, scratch = tmp_path / "config/stage.json", tmp_path / "scratch"
    path.parent.mkdir()
    scratch.mkdir()
    path.write_text(config.model_dump_json(by_alias=True), encoding="utf-8")
    progress = ProgressReporter(scratch / "progress.json", history=tmp_path / "metrics.jsonl")
    return StageContext(config=config, config_path=path, scratch=scratch, progress=progress)


@pytest.mark.parametrize(("seen", "given"), [(None, "0"), ("3,5", "3"), ("GPU-a,GPU-b", "GPU-a"), ("", "")])
def test_a_single_process_gets_one_of_the_gpus(seen: str | None, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several, transformers would wrap the model and give each GPU a batch."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert ranks._environment()["CUDA_VISIBLE_DEVICES"] == given


@pytest.mark.parametrize("told", ["285", None])
def test_torchrun_gives_processes_the_time_to_save_that_the_operator_tells(
    told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    if told is not None:
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", told)
    assert ranks._environment()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == (told or "300")


def test_the_processes_of_a_gang_share_the_gpus_among_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert ranks._environment()["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_a_module_that_cannot_be_imported_fails_for_good(context: StageContext[FilterStage]) -> None:
    with pytest.raises(StageError) as caught:
        ranks.run_ranks("posttrain_runtime.not_there", context, patience=60)
    assert caught.value.code is ExitCode.UNHANDLED


def test_a_half_written_outcome_is_none(
    context: StageContext[FilterStage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (context.scratch / "rank-0.json").write_text('{"rank": 0, "ti', encoding="utf-8")
    kill = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(ranks, "rank_command", lambda *_: kill)
    with caplog.at_level(logging.WARNING), pytest.raises(StageError) as caught:
        ranks.run_ranks("any", context, patience=60)
    assert caught.value.code is ExitCode.KILLED
    assert "rank-0.json cannot be read" in caplog.text


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Chooses how ``support.hanging_rank`` hangs."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    return lambda how: monkeypatch.setenv("HANG", how)


@pytest.mark.parametrize(
    ("how", "answer", "stack"),
    [
        ("sleep", "every rank answered", "in <lambda>"),
        ("gil", "every rank answered", "in _hold_the_gil"),
        ("stopped", "rank 0 did not answer (state T (stopped))", "no answer: the process is in state T (stopped)"),
    ],
)
def test_a_process_that_hangs_is_ended_and_its_stacks_are_kept(
    context: StageContext[FilterStage], hanging: Callable[[str], None], how: str, answer: str, stack: str
) -> None:
    hanging(how)
    (context.folder / "logs").mkdir(parents=True)
    with pytest.raises(StageError) as caught:
        ranks.run_ranks("support.hanging_rank", context, patience=1)
    assert (caught.value.code, caught.value.reason) == (ExitCode.PEER_LOST, "Stalled")
    assert "in phase 'loading model'" in caught.value.message
    assert answer in caught.value.message
    assert stack in (context.folder / "logs/stalled-1-0.txt").read_text(encoding="utf-8")
    (file,) = context.scratch.glob("stacks-*")
    assert not Path(f"/proc/{file.stem.rpartition('-')[2]}").exists()


def test_a_process_that_hangs_after_a_stop_request_was_preempted(
    context: StageContext[FilterStage], hanging: Callable[[str], None]
) -> None:
    hanging("gil")
    (context.folder / "logs").mkdir(parents=True)

    def ask() -> None:
        wait_for((context.scratch / "progress.json").exists, "the process to begin")
        context.stop.set()

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Preempted) as caught:
        ranks.run_ranks("support.hanging_rank", context, patience=1)
    asking.join()
    assert not caught.value.saved
    assert (context.folder / "logs/stalled-1-0.txt").is_file()
