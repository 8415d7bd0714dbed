"""Finding processes that hang: by what they tell, soon enough, and never while they work."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import stalls
from posttrain_runtime.progress import ProgressReporter
from posttrain_runtime.ranks import RankOutcome
from support.waiting import wait_for

PATIENCE = 1800


class Scene:
    """The ranks of one pod and their watcher, under a clock that the test moves."""

    def __init__(self, scratch: Path, ranks: int = 1) -> None:
        self.scratch = scratch
        self.now = 1000.0
        self.watch = stalls.Watch(scratch, patience=PATIENCE, clock=lambda: self.now)
        names = ["progress.json", *(f"progress-{rank}.json" for rank in range(1, ranks))]
        self._ranks = [ProgressReporter(scratch / name, history=scratch / "metrics.jsonl") for name in names]

    def tell(self, phase: str, step: int = 0, *, ranks: list[int] | None = None) -> None:
        """The ranks, or some of them, report; each report has a time of its own."""
        for rank, reporter in enumerate(self._ranks):
            if ranks is None or rank in ranks:
                reporter._written = 0.0
                reporter.update(phase, step=step, total=10**6)

    def wait(self, seconds: float) -> float | None:
        """Lets time pass; the seconds after which the watcher found a stall, if it did."""
        begun = self.now
        while self.now < begun + seconds:
            self.now += 1
            self.watch.look()
            if self.watch.stalled is not None:
                return self.now - begun
        return None

    def train(self, *, first: int, count: int, seconds: float) -> None:
        """Steps of so many seconds, none of which is a stall."""
        for step in range(first, first + count):
            assert self.wait(seconds) is None
            self.tell("training", step)
        assert self.wait(1) is None


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_before_anything_is_told_nothing_hangs(scene: Scene) -> None:
    assert scene.wait(10 * PATIENCE) is None


@pytest.mark.parametrize("phase", ["loading model", "evaluating", "saving"])
def test_a_phase_without_steps_has_its_patience_for_each_sign_of_life(scene: Scene, phase: str) -> None:
    scene.tell("loading data")
    for _ in range(3):
        scene.tell(phase)
        assert scene.wait(PATIENCE - 10) is None
    scene.tell(phase)
    assert scene.wait(2 * PATIENCE) == pytest.approx(PATIENCE, abs=3)


@pytest.mark.parametrize(("seconds", "limit"), [(1, 60), (3, 60), (20, 200), (300, 3000)])
def test_between_steps_the_limit_is_ten_times_the_median_and_a_minute_at_least(
    scene: Scene, seconds: float, limit: float
) -> None:
    scene.tell("training", 0)
    scene.train(first=1, count=8, seconds=seconds)
    assert scene.wait(10 * limit) == pytest.approx(limit, abs=3)


def test_steps_count_although_several_were_made_between_two_looks(scene: Scene) -> None:
    scene.tell("training", 0)
    assert scene.wait(5) is None
    scene.tell("training", 6)
    assert scene.wait(200) == pytest.approx(60, abs=3)


def test_the_first_steps_may_take_long(scene: Scene) -> None:
    scene.tell("training", 0)
    scene.train(first=1, count=1, seconds=PATIENCE - 10)
    scene.train(first=2, count=1, seconds=1)
    assert scene.wait(2 * PATIENCE) == pytest.approx(PATIENCE, abs=3)


def test_steps_that_wait_for_servers_have_a_floor_of_their_own(scene: Scene) -> None:
    scene.watch = stalls.Watch(scene.scratch, patience=PATIENCE, least_step=500, clock=lambda: scene.now)
    scene.tell("training", 0)
    scene.train(first=1, count=8, seconds=1)
    assert scene.wait(1000) == pytest.approx(500, abs=3)


def test_a_single_slow_step_does_not_change_the_limit(scene: Scene) -> None:
    scene.tell("training", 0)
    scene.train(first=1, count=10, seconds=1)
    scene.train(first=11, count=1, seconds=55)
    assert scene.wait(200) == pytest.approx(60, abs=3)


def test_reports_without_a_step_are_no_life_while_it_trains(scene: Scene) -> None:
    scene.tell("training", 0)
    scene.train(first=1, count=5, seconds=1)
    for _ in range(30):
        scene.tell("training", 5)
        if (found := scene.wait(3)) is not None:
            break
    assert found is not None


def test_saving_a_checkpoint_or_evaluating_between_steps_is_no_hang(scene: Scene) -> None:
    scene.tell("training", 0)
    scene.train(first=1, count=5, seconds=1)
    saving = stalls.saving_file(scene.scratch, 0)
    saving.touch()
    assert scene.wait(900) is None
    saving.unlink()
    assert scene.wait(50) is None
    scene.train(first=6, count=1, seconds=1)
    scene.tell("evaluating", 6)
    assert scene.wait(900) is None
    scene.tell("training", 6)
    assert scene.wait(200) == pytest.approx(60, abs=3)


def test_a_gang_hangs_when_none_of_its_ranks_gets_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ranks=2)
    scene.tell("training", 0)
    scene.train(first=1, count=5, seconds=1)
    scene.tell("saving", 5, ranks=[0])
    assert scene.wait(900) is None, "the other one waits for it"
    scene.tell("saving", 5, ranks=[1])
    scene.tell("training", 6, ranks=[0])
    assert scene.wait(900) is None
    scene.tell("training", 6, ranks=[1])
    assert scene.wait(200) == pytest.approx(60, abs=3)


def test_a_rank_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ranks=2)
    scene.tell("training", 0)
    scene.train(first=1, count=5, seconds=1)
    for rank in (0, 1):
        outcome(tmp_path, rank, ExitCode.DONE)
    assert scene.wait(10 * PATIENCE) is None
    assert not scene.watch.bereaved


def test_a_machine_that_slept_has_not_stalled(scene: Scene) -> None:
    scene.tell("training", 0)
    scene.train(first=1, count=5, seconds=1)
    for _ in range(5):
        scene.now += 8 * 3600
        scene.watch.look()
        assert scene.watch.stalled is None
    assert scene.wait(60) is not None


def outcome(scratch: Path, rank: int, code: ExitCode) -> None:
    """What a rank leaves when it ends."""
    told = RankOutcome(rank=rank, time=0.0, exit_code=code)
    (scratch / f"rank-{rank}.json").write_text(told.model_dump_json(by_alias=True), encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "over"), [(ExitCode.DATA, True), (ExitCode.PEER_LOST, True), (ExitCode.DONE, False), (143, False)]
)
def test_who_waits_for_a_rank_that_failed_is_ended_after_a_moment(tmp_path: Path, code: int, over: bool) -> None:
    scene = Scene(tmp_path, ranks=2)
    scene.tell("training", 0)
    outcome(tmp_path, 1, ExitCode(code))
    scene.wait(8)
    assert not scene.watch.bereaved
    scene.wait(4)
    assert scene.watch.bereaved is over


def test_who_waits_for_a_rank_that_was_killed_is_ended_after_a_moment(
    scene: Scene, hang: dict[str, "subprocess.Popen[bytes]"]
) -> None:
    scene.wait(20)
    assert not scene.watch.bereaved
    hang["asleep"].kill()
    hang["asleep"].wait()
    scene.wait(12)
    assert scene.watch.bereaved


HANGING = {
    "asleep": "import time; time.sleep(1000)",
    "holding the GIL": "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
    "in a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
}


@pytest.fixture
def hang(tmp_path: Path) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Processes that hang in different ways, each as a rank of its own."""
    code = "import sys; from pathlib import Path; from posttrain_runtime.stalls import answer_with_stacks\n"
    code += "answer_with_stacks(Path(sys.argv[1]), int(sys.argv[2]))\n"
    running = {
        name: subprocess.Popen([sys.executable, "-c", code + body, str(tmp_path), str(rank)])
        for rank, (name, body) in enumerate(HANGING.items())
    }
    wait_for(lambda: len(list(tmp_path.glob("stacks-*.txt"))) == len(running), "the ranks")
    yield running
    for process in running.values():
        process.kill()
        process.wait()


def test_whoever_hangs_tells_its_stacks_and_a_stopped_one_is_named(
    tmp_path: Path, hang: dict[str, "subprocess.Popen[bytes]"]
) -> None:
    assert stalls.save_stacks(tmp_path, tmp_path / "all.txt") == "every rank answered"
    text = (tmp_path / "all.txt").read_text(encoding="utf-8")
    assert text.count("most recent call first") == len(HANGING)
    for rank, process in enumerate(hang.values()):
        assert f"rank {rank}, process {process.pid}\n" in text

    for path in tmp_path.glob("stacks-*"):
        os.truncate(path, 0)
    hang["asleep"].send_signal(19)  # SIGSTOP
    told = stalls.save_stacks(tmp_path, tmp_path / "some.txt")
    assert told == "rank 0 did not answer (state T (stopped))"
    text = (tmp_path / "some.txt").read_text(encoding="utf-8")
    assert "no answer: the process is in state T (stopped)" in text
    assert text.count("most recent call first") == len(HANGING) - 1

    stalls.end_ranks(tmp_path)
    assert [process.wait(timeout=10) for process in hang.values()] == [-9] * len(HANGING)
