"""Checkpoints: one counts once it is sealed and whole; broken ones are set aside, foreign ones refused."""

import errno
import itertools
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import checkpoints
from posttrain_runtime.errors import StageError, classify
from safetensors import SafetensorError
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


def found(folder: Path) -> checkpoints.Found:
    """What an attempt of the same configuration goes on from."""
    return checkpoints.newest(folder, config_digest=DIGEST, world_size=1)


def names(folder: Path) -> list[str]:
    """What is in the folder."""
    return sorted(path.name for path in folder.iterdir())


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert found(tmp_path / "absent") == checkpoints.Found(None)
    assert found(tmp_path) == checkpoints.Found(None)


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        save(tmp_path, step)
    assert found(tmp_path).path == tmp_path / "checkpoint-100"


def truncate(path: Path) -> None:
    """Cuts a file short."""
    (path / "model.safetensors").write_bytes(b"w" * 99)


def flip(path: Path) -> None:
    """Changes one bit of one file."""
    data = bytearray((path / "model.safetensors").read_bytes())
    data[57] ^= 1
    (path / "model.safetensors").write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated file": (truncate, "model.safetensors is missing or has the wrong size"),
    "empty file": (lambda path: (path / "model.safetensors").write_bytes(b""), "model.safetensors is missing or has"),
    "flipped bit": (flip, "model.safetensors changed since it was saved"),
    "missing file": (lambda path: (path / "rank/0.bin").unlink(), "rank/0.bin is missing"),
    "no marker": (lambda path: (path / layout.COMPLETE).unlink(), "it was not finished"),
    "empty marker": (lambda path: (path / layout.COMPLETE).write_bytes(b""), "its marker is damaged"),
    "torn marker": (lambda path: (path / layout.COMPLETE).write_text('{"step": 20'), "its marker is damaged"),
}


@pytest.mark.parametrize(("spoil", "fault"), DAMAGE.values(), ids=DAMAGE)
def test_a_broken_checkpoint_is_set_aside_for_the_one_before(
    tmp_path: Path, spoil: Callable[[Path], object], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 10)
    spoil(save(tmp_path, 20))
    chosen = found(tmp_path)
    assert chosen.path == tmp_path / "checkpoint-10"
    (skipped,) = chosen.skipped
    assert skipped.startswith(f"checkpoint-20 is set aside: {fault}")
    assert skipped in caplog.text
    assert names(tmp_path) == ["broken-checkpoint-20", "checkpoint-10"]
    spoil(save(tmp_path, 20))
    assert found(tmp_path).path == tmp_path / "checkpoint-10"
    assert names(tmp_path) == ["broken-checkpoint-20", "broken-checkpoint-20.2", "checkpoint-10"]


def test_a_flip_of_any_byte_of_any_file_is_found(tmp_path: Path) -> None:
    save(tmp_path, 10)
    path = save(tmp_path, 20)
    for file in ("model.safetensors", "rank/0.bin"):
        whole = (path / file).read_bytes()
        for place in range(len(whole)):
            (path / file).write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
            assert checkpoints._changed(path) == f"{file} changed since it was saved"
        (path / file).write_bytes(whole)
    assert found(tmp_path).path == path


def test_several_broken_checkpoints_are_all_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 10)
    for step in (20, 30, 40):
        flip(save(tmp_path, step))
    chosen = found(tmp_path)
    assert chosen.path == tmp_path / "checkpoint-10"
    assert [told.partition(" ")[0] for told in chosen.skipped] == ["checkpoint-40", "checkpoint-30", "checkpoint-20"]


def test_ranks_may_set_the_same_checkpoint_aside(tmp_path: Path) -> None:
    path = save(tmp_path, 10)
    assert checkpoints.set_aside(path, "any") == checkpoints.set_aside(path, "any")
    assert names(tmp_path) == ["broken-checkpoint-10"]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 10, config_digest="e" * 64)
    with pytest.raises(StageError, match="remove it or create the object anew") as caught:
        found(tmp_path)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "CheckpointMismatch")
    assert path.is_dir()


@pytest.mark.parametrize(("saved_by", "asked"), [(2, 1), (1, 2)])
def test_a_checkpoint_of_another_number_of_processes_is_refused_and_stays(
    tmp_path: Path, saved_by: int, asked: int
) -> None:
    path = save(tmp_path, 10, seal=False)
    checkpoints.seal(path, step=10, world_size=saved_by, config_digest=DIGEST)
    with pytest.raises(StageError, match=rf"was saved by {saved_by} process(es)?, this attempt has {asked}") as caught:
        checkpoints.newest(tmp_path, config_digest=DIGEST, world_size=asked)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "WorldSizeChanged")
    assert f"run with {saved_by} (nodes x processesPerNode)" in caught.value.message
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
        found(tmp_path)
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
    path = found(folder).path
    assert path is not None
    assert (path / "model.safetensors").stat().st_size == 100
    step = int(path.name.removeprefix("checkpoint-"))
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
        crashed = crashes_at(change, folder, partial(found, folder))
        assert resume_and_go_on(folder) == 10
        assert "checkpoint-20" in names(folder)
        if not crashed:
            assert change > 2, "the crashes did not reach the steps of setting aside"
            return


def test_rotation_with_few_checkpoints_removes_none(tmp_path: Path) -> None:
    save(tmp_path, 5)
    checkpoints.rotate(tmp_path, keep=3)
    assert names(tmp_path) == ["checkpoint-5"]


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the file system as large as told, in bytes; what the folder holds counts."""
    usage = namedtuple("usage", "total used free")  # noqa: PYI024

    def resize(size: int) -> None:
        def measure(folder: Path) -> usage:
            used = sum(path.stat().st_size for path in folder.rglob("model.safetensors"))
            return usage(size, used, size - used)

        monkeypatch.setattr("shutil.disk_usage", measure)

    return resize


def test_a_checkpoint_that_would_not_fit_is_not_begun(tmp_path: Path, claim: Callable[[int], None]) -> None:
    claim(130)
    checkpoints.make_room(tmp_path, keep=2, expected_bytes=100)
    claim(129)
    with pytest.raises(StageError, match=r"lower checkpoints\.keep") as caught:
        checkpoints.make_room(tmp_path, keep=2, expected_bytes=100)
    assert (caught.value.code, caught.value.reason) == (ExitCode.STORAGE, "DiskFull")


def test_as_many_old_checkpoints_as_needed_make_room_before_a_save_is_refused(
    tmp_path: Path, claim: Callable[[int], None]
) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    claim(440)
    checkpoints.make_room(tmp_path, keep=3, expected_bytes=1 << 60)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-20", "checkpoint-30"], "the newest one's size counts"
    claim(340)
    checkpoints.make_room(tmp_path, keep=3, expected_bytes=1 << 60)
    assert names(tmp_path) == ["checkpoint-20", "checkpoint-30"]
    claim(200)
    with pytest.raises(StageError):
        checkpoints.make_room(tmp_path, keep=3, expected_bytes=1)
    assert names(tmp_path) == ["checkpoint-30"], "the last good one stays"


def test_what_a_full_disk_left_unfinished_makes_room_first(tmp_path: Path, claim: Callable[[int], None]) -> None:
    for step in (10, 20):
        save(tmp_path, step)
    save(tmp_path, 30, seal=False)
    assert found(tmp_path).path == tmp_path / "checkpoint-20"
    claim(350)
    checkpoints.make_room(tmp_path, keep=2, expected_bytes=1)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-20"]


def test_a_save_that_the_disk_cut_short_is_a_storage_failure_and_no_checkpoint(tmp_path: Path) -> None:
    before, path = save(tmp_path, 10), save(tmp_path, 20, seal=False)
    (path / "optimizer.pt").symlink_to("/dev/full")
    with pytest.raises(RuntimeError) as caught:
        torch.save({"moments": torch.zeros(100_000)}, path / "optimizer.pt")
    failure = classify(caught.value)
    assert (failure.code, failure.reason) == (ExitCode.STORAGE, "WriteFailed")
    assert found(tmp_path).path == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.safetensors"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/0"),
    ],
    ids=["the system", "safetensors", "torch"],
)
def test_a_full_disk_is_one_whoever_tells_of_it(error: Exception) -> None:
    assert classify(error).code is ExitCode.STORAGE


def test_an_error_of_reading_is_no_full_disk() -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:321] . PytorchStreamReader failed reading file data/0")
    assert classify(error).code is ExitCode.UNHANDLED
