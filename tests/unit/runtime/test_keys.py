"""The key of a run's servers: one for all who ask, and nobody else can read it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_runtime.files import leftovers
from posttrain_runtime.keys import server_key


def test_all_who_ask_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: server_key(tmp_path / "run"), range(64)))
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert {path.name for path in (tmp_path / "run").iterdir()} == {layout.SERVER_KEY, ".lock"}


def test_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    server_key(tmp_path)
    assert stat.S_IMODE((tmp_path / layout.SERVER_KEY).stat().st_mode) == 0o600


def test_every_run_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert server_key(tmp_path / "one") != server_key(tmp_path / "two")


def test_what_a_killed_process_left_of_a_key_is_swept_with_other_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []

    def killed(_path: Path, temporary: Path) -> None:
        left.append(temporary)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "hardlink_to", killed)
    with pytest.raises(KeyboardInterrupt):
        server_key(tmp_path)
    left[0].touch()
    assert list(leftovers(tmp_path)) == left
