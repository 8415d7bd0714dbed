"""Checkpoints: one counts once it is sealed and whole; broken ones are set aside, foreign ones refused."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import checkpoints
from posttrain_runtime.errors import StageError
from support.crashes import crashes_at

DIGEST = "d" * 64


def save(folder: Path, step: int, *, seal: bool = True, config_digest: str = DIGEST) -> Path:
    """A checkpoint with two files."""
    path = folder / f"checkpoint-{step}"
    (path / "rank").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"w" * 100)
    (path / "rank/0.bin").write_bytes(b"r")
    if seal:
        checkpoints.seal(path, step=step, world_size=1, config_digest=config_digest)
    return path


def names(folder: Path) -> list[str]:
    """What is in the folder."""
    return sorted(path.name for path in folder.iterdir())


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "absent", config_digest=DIGEST) is None
    assert checkpoints.newest(tmp_path, config_digest=DIGEST) is None


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        save(tmp_path, step)
    assert checkpoints.newest(tmp_path, config_digest=DIGEST) == tmp_path / "checkpoint-100"


def truncate(path: Path) -> None:
    """Cuts a file short."""
    (path / "model.safetensors").write_bytes(b"w" * 99)


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        lambda path: (path / "rank/0.bin").unlink(),
        lambda path: (path / layout.COMPLETE).unlink(),
        lambda path: (path / layout.COMPLETE).write_text('{"step": 20'),
    ],
    ids=["truncated file", "missing file", "no marker", "torn marker"],
)
def test_a_broken_checkpoint_is_set_aside_for_the_one_before(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    save(tmp_path, 10)
    spoil(save(tmp_path, 20))
    assert checkpoints.newest(tmp_path, config_digest=DIGEST) == tmp_path / "checkpoint-10"
    assert names(tmp_path) == ["broken-checkpoint-20", "checkpoint-10"]
    spoil(save(tmp_path, 20))
    assert checkpoints.newest(tmp_path, config_digest=DIGEST) == tmp_path / "checkpoint-10"
    assert names(tmp_path) == ["broken-checkpoint-20", "broken-checkpoint-20.2", "checkpoint-10"]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 10, config_digest="e" * 64)
    with pytest.raises(StageError, match="remove it or create the object anew") as caught:
        checkpoints.newest(tmp_path, config_digest=DIGEST)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "CheckpointMismatch")
    assert path.is_dir()


def test_rotation_keeps_the_newest_and_what_is_newer_than_they(tmp_path: Path) -> None:
    for step in (5, 10, 100, 20):
        save(tmp_path, step)
    save(tmp_path, 50, seal=False)
    save(tmp_path, 200, seal=False)
    (tmp_path / "notes").mkdir()
    checkpoints.rotate(tmp_path, keep=2)
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-20", "checkpoint-200", "checkpoint-50", "notes"]


def test_rotation_removes_what_killed_processes_left_before_them(tmp_path: Path) -> None:
    for _ in range(2):  # killed twice while saving the same step
        save(tmp_path, 10, seal=False)
        checkpoints.newest(tmp_path, config_digest=DIGEST)
    save(tmp_path, 15, seal=False)
    save(tmp_path, 20)
    assert names(tmp_path) == ["broken-checkpoint-10", "broken-checkpoint-10.2", "checkpoint-15", "checkpoint-20"]
    checkpoints.rotate(tmp_path, keep=2)
    assert names(tmp_path) == ["checkpoint-20"]


def test_rotation_without_a_whole_checkpoint_removes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 10, seal=False)
    checkpoints.rotate(tmp_path, keep=1)
    assert names(tmp_path) == ["checkpoint-10"]


def save_and_rotate(folder: Path, step: int) -> None:
    """What a trainer does every so many steps."""
    save(folder, step)
    checkpoints.rotate(folder, keep=2)


def resume_and_go_on(folder: Path) -> int:
    """What the next attempt does: it trains from the newest checkpoint, two savings further. Returns where it began."""
    found = checkpoints.newest(folder, config_digest=DIGEST)
    assert found is not None
    assert (found / "model.safetensors").stat().st_size == 100
    step = int(found.name.removeprefix("checkpoint-"))
    for later in (step + 10, step + 20):
        save_and_rotate(folder, later)
    return step


def test_a_crash_at_any_moment_of_saving_leaves_the_one_before_and_no_litter(tmp_path: Path) -> None:
    for change in itertools.count(1):
        folder = tmp_path / str(change)
        folder.mkdir()
        for step in (10, 20):
            save(folder, step)
        crashed = crashes_at(change, folder, partial(save_and_rotate, folder, 30))
        begun = resume_and_go_on(folder)
        assert begun in (20, 30)
        assert names(folder) == [f"checkpoint-{begun + 10}", f"checkpoint-{begun + 20}"]
        if not crashed:
            assert begun == 30
            assert change > 10, "the crashes did not reach the steps of sealing and rotating"
            return


def test_a_crash_at_any_moment_of_resuming_does_no_harm(tmp_path: Path) -> None:
    for change in itertools.count(1):
        folder = tmp_path / str(change)
        folder.mkdir()
        save(folder, 10)
        save(folder, 20, seal=False)
        crashed = crashes_at(change, folder, partial(checkpoints.newest, folder, config_digest=DIGEST))
        assert resume_and_go_on(folder) == 10
        assert "checkpoint-20" in names(folder)
        if not crashed:
            assert change > 2, "the crashes did not reach the steps of setting aside"
            return


def test_rotation_with_few_checkpoints_removes_none(tmp_path: Path) -> None:
    save(tmp_path, 5)
    checkpoints.rotate(tmp_path, keep=3)
    assert names(tmp_path) == ["checkpoint-5"]


def test_a_checkpoint_that_would_not_fit_is_not_begun(tmp_path: Path) -> None:
    checkpoints.check_space(tmp_path, expected_bytes=1)
    with pytest.raises(StageError, match=r"lower checkpoints\.keep") as caught:
        checkpoints.check_space(tmp_path, expected_bytes=1 << 60)
    assert (caught.value.code, caught.value.reason) == (ExitCode.STORAGE, "DiskFull")
