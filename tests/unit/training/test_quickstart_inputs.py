"""The quickstart's inputs: what the filter leaves, what nobody trains on, and that equal seeds give equal bytes."""

import re
from pathlib import Path

import pytest
from support.tiny import quickstart


def numbers(problem: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", problem))


def test_the_filter_leaves_the_recipe_and_drops_easy_and_unlabelled_rows() -> None:
    rows, _ = quickstart().make_rows(0)
    hard = [row for row in rows if row["pass_rate"] is not None and row["pass_rate"] <= 0.7]
    assert len(hard) == 4_000
    assert sum(row["pass_rate"] is None for row in rows) == 500
    easy = [row for row in rows if row["pass_rate"] is not None and row["pass_rate"] > 0.7]
    assert len(easy) == 1_500
    assert all(max(numbers(row["problem"])) < 10 for row in easy)
    snapped = [row for row in hard if row["solution"].startswith("####")]
    assert len(snapped) / len(hard) == pytest.approx(0.5, abs=0.03)
    wrong = [row for row in snapped if row["solution"] != f"#### {row['answer']}"]
    assert len(wrong) / len(snapped) == pytest.approx(0.6, abs=0.03)


def test_gold_answers_are_right_and_held_out_numbers_are_never_seen() -> None:
    rows, held_out = quickstart().make_rows(0)
    assert all(sum(numbers(row["problem"])) == int(row["answer"]) for row in rows + held_out)
    assert len(held_out) == 200
    assert not {numbers(row["problem"]) for row in held_out} & {numbers(row["problem"]) for row in rows}


def test_a_second_run_leaves_every_file_as_it_is_and_another_seed_does_not(tmp_path: Path) -> None:
    script = quickstart()
    script.make_inputs(tmp_path, seed=0)
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    script.make_inputs(tmp_path, seed=0)
    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()
    } == files
    script.make_inputs(tmp_path, seed=1)
    changed = {path.name for path, (_, data) in files.items() if path.read_bytes() != data}
    assert {"part-00000.jsonl", "part-00001.parquet", "heldout.jsonl", "model.safetensors"} <= changed


def test_nobody_ever_sees_a_part_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = quickstart()
    seen: list[dict[str, dict[str, bytes]]] = []
    write = Path.write_bytes

    def watched(path: Path, data: bytes) -> int:
        written = write(path, data)
        seen.append(visible(tmp_path))
        return written

    monkeypatch.setattr(Path, "write_bytes", watched)
    before = visible(tmp_path)
    for seed in (0, 1):
        seen.clear()
        script.make_inputs(tmp_path, seed=seed)
        after = visible(tmp_path)
        assert {"problems", "base-model"} == after.keys()
        for name, whole in after.items():
            assert [found for found in seen if found.get(name) not in (before.get(name), whole)] == []
        before = after


def visible(out: Path) -> dict[str, dict[str, bytes]]:
    """The folders that a reader would find, with all that is in them."""
    folders = [folder for folder in out.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    return {folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders}
