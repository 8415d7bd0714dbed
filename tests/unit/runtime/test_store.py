"""Publishing an artifact: readers see all of it or nothing, whatever is killed and whoever publishes beside it."""

import hashlib
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.artifact import FileEntry, InputEntry
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import store
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import Staged
from support.crashes import crashes_at

OLD, NEW = "0" * 64, "1" * 64


def stage_files(run_folder: Path, content: str, *, name: str = ".staging-1-0") -> Staged:
    """A staged folder with two files, one of them in a folder."""
    folder = run_folder / name
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text(content, encoding="utf-8")
    (folder / "sub/b.txt").write_text(content * 2, encoding="utf-8")
    return Staged(folder, "dataset", rows=3)


def publish(run_folder: Path, staged: Staged, *, config_digest: str = NEW) -> None:
    """Describes and publishes, as the runtime does."""
    manifest = store.describe(staged, config_digest=config_digest, inputs={})
    with store.locked(run_folder):
        store.publish(run_folder, staged, manifest)


def read_published(run_folder: Path) -> str | None:
    """What a reader finds: the content, or None while nothing is published. Half an artifact fails the test."""
    manifest = store.read_manifest(run_folder)
    if manifest is None:
        return None
    assert store.damage(run_folder, manifest, hashes=True) is None
    return (run_folder / layout.ARTIFACT / "a.txt").read_text(encoding="utf-8")


def test_a_published_artifact_proves_itself(tmp_path: Path) -> None:
    publish(tmp_path, stage_files(tmp_path, "new"))
    assert read_published(tmp_path) == "new"
    manifest = store.read_manifest(tmp_path)
    assert manifest is not None
    assert [entry.path for entry in manifest.files] == ["a.txt", "sub/b.txt"]
    assert (manifest.bytes, manifest.rows) == (9, 3)
    assert not (tmp_path / ".staging-1-0").exists()


def test_the_digest_is_of_content_and_names_alone() -> None:
    entries = tuple(FileEntry(path=name, size=1, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in "ab")
    lines = "".join(f"{entry.sha256}  1  {entry.path}\n" for entry in entries)
    assert store.content_digest(entries) == hashlib.sha256(lines.encode()).hexdigest()
    assert store.content_digest(entries) == store.content_digest(tuple(reversed(entries)))
    assert store.content_digest(entries) != store.content_digest(entries[:1])


@pytest.mark.parametrize("earlier", ["nothing", "another configuration", "a leftover"])
def test_a_crash_at_any_moment_leaves_all_or_nothing(tmp_path: Path, earlier: str) -> None:
    for change in itertools.count(1):
        run_folder = tmp_path / str(change)
        run_folder.mkdir()
        if earlier != "nothing":
            publish(run_folder, stage_files(run_folder, "old"), config_digest=OLD)
        if earlier == "a leftover":
            (run_folder / layout.MANIFEST).unlink()
        staged = stage_files(run_folder, "new")
        crashed = crashes_at(change, run_folder, partial(publish, run_folder, staged))
        assert read_published(run_folder) in (
            {"old", "new", None} if earlier == "another configuration" else {"new", None}
        )
        if not staged.folder.exists():
            staged = stage_files(run_folder, "new")
        publish(run_folder, staged)
        assert read_published(run_folder) == "new"
        if not crashed:
            assert change > 5, "the crashes did not reach the steps of publishing"
            return


def test_of_several_who_publish_at_once_the_first_wins_and_readers_never_see_less(tmp_path: Path) -> None:
    for turn in range(10):
        run_folder = tmp_path / str(turn)
        run_folder.mkdir()
        publishers = []
        for index in range(4):
            staged = stage_files(run_folder, "same", name=f".staging-1-{index}")
            if (pid := os.fork()) == 0:
                try:
                    publish(run_folder, staged)
                except BaseException:  # noqa: BLE001 - the child must never run the parent's tests
                    os._exit(1)
                os._exit(0)
            publishers.append(pid)
        while store.read_manifest(run_folder) is None:
            assert read_published(run_folder) in (None, "same")
        for pid in publishers:
            assert read_published(run_folder) == "same"
            assert os.waitpid(pid, 0)[1] == 0
        assert read_published(run_folder) == "same"


def test_a_second_artifact_of_the_same_configuration_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, stage_files(tmp_path, "first"))
    publish(tmp_path, stage_files(tmp_path, "second"))
    assert read_published(tmp_path) == "first"


def test_withdrawing_spares_what_was_published_meanwhile(tmp_path: Path) -> None:
    publish(tmp_path, stage_files(tmp_path, "old"), config_digest=OLD)
    stale = store.read_manifest(tmp_path)
    assert stale is not None
    publish(tmp_path, stage_files(tmp_path, "new"))
    store.withdraw(tmp_path, stale)
    assert read_published(tmp_path) == "new"


def damage_of(run_folder: Path, *, hashes: bool) -> str | None:
    """The damage of what is published."""
    manifest = store.read_manifest(run_folder)
    assert manifest is not None
    return store.damage(run_folder, manifest, hashes=hashes)


def test_damage_is_named(tmp_path: Path) -> None:
    publish(tmp_path, stage_files(tmp_path, "new"))
    file = tmp_path / "artifact/a.txt"
    file.write_text("wen", encoding="utf-8")
    assert damage_of(tmp_path, hashes=False) is None
    assert damage_of(tmp_path, hashes=True) == "a.txt has other content than was published"
    file.write_text("newer", encoding="utf-8")
    assert damage_of(tmp_path, hashes=False) == "a.txt has 5 bytes, not 3"
    file.unlink()
    assert damage_of(tmp_path, hashes=False) == "a.txt is missing"


@pytest.mark.parametrize(
    ("spoil", "reason", "sentence"),
    [
        (lambda folder: (folder / layout.MANIFEST).unlink(), "InputMissing", "no artifact is published at pvc://x"),
        (lambda folder: (folder / layout.MANIFEST).write_text("{"), "InputMissing", "no artifact is published"),
        (lambda folder: (folder / "artifact/a.txt").unlink(), "InputDamaged", "is damaged: a.txt is missing"),
    ],
    ids=["no manifest", "torn manifest", "missing file"],
)
def test_an_input_is_checked_before_it_is_used(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str, sentence: str
) -> None:
    publish(tmp_path, stage_files(tmp_path, "new"))
    spoil(tmp_path)
    with pytest.raises(StageError, match=sentence) as caught:
        store.check_artifact(tmp_path / layout.ARTIFACT, field="spec.model", uri="pvc://x", digest=None)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, reason)
    assert caught.value.message.startswith("spec.model: ")


def test_an_input_that_was_replaced_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, stage_files(tmp_path, "new"))
    with pytest.raises(StageError, match="create the object anew to use the new one") as caught:
        store.check_artifact(tmp_path / layout.ARTIFACT, field="spec.model", uri="pvc://x", digest="f" * 64)
    assert caught.value.reason == "InputChanged"


def test_the_lineage_is_part_of_the_manifest(tmp_path: Path) -> None:
    inputs = {"source": InputEntry(uri="pvc://a/b", digest="e" * 64)}
    manifest = store.describe(stage_files(tmp_path, "x"), config_digest=NEW, inputs=inputs)
    assert manifest.inputs == inputs
    assert store.summarize(manifest, uri="pvc://here").model_dump(exclude_none=True) == {
        "uri": "pvc://here",
        "digest": manifest.digest,
        "type": "dataset",
        "bytes": 3,
        "rows": 3,
    }


def test_an_artifact_is_named_to_people_by_its_run(tmp_path: Path) -> None:
    assert store.shown_name(tmp_path / "sft-0123abcd" / "artifact") == "sft-0123abcd"
    assert store.shown_name(tmp_path / "base-model") == "base-model"
