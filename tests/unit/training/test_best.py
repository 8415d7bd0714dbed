"""The best step: which one it is, over all attempts, and that rotation leaves its checkpoint."""

import json
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.metrics import EXACT_MATCH, PERPLEXITY
from posttrain_runtime import checkpoints
from posttrain_training.best import Best
from posttrain_training.history import History


def best(folder: Path, figure: str = EXACT_MATCH, *, resumed_at: int = 0) -> Best:
    return Best(figure, folder=folder / "checkpoints", history=History(folder), resumed_at=resumed_at)


def save(folder: Path, *steps: int) -> None:
    """Whole checkpoints of these steps."""
    for step in steps:
        path = folder / "checkpoints" / f"checkpoint-{step}"
        path.mkdir(parents=True)
        (path / "weights").write_bytes(b"w")
        checkpoints.seal(path, step=step, world_size=1, config_digest="0")


@pytest.mark.parametrize(
    ("figure", "values", "chosen"),
    [
        (EXACT_MATCH, [0.9, 0.1, 0.5, 0.5, 0.2], 2),
        (PERPLEXITY, [1.0, 9.0, 4.0, 4.0, 7.0], 2),
        (EXACT_MATCH, [0.0, 0.0, 0.0], 1),
        (PERPLEXITY, [1.0, float("nan"), float("inf")], 2),
    ],
)
def test_the_earliest_of_the_best_trained_steps_is_chosen(
    tmp_path: Path, figure: str, values: list[float], chosen: int
) -> None:
    chooser = best(tmp_path, figure)
    told = [chooser.see(step, {figure: value, "loss": 1.0}) for step, value in enumerate(values)]
    assert chooser.step == chosen
    assert max(step for step, is_best in enumerate(told) if is_best) == chosen


def test_earlier_attempts_count_as_far_as_their_checkpoints_are_whole(tmp_path: Path) -> None:
    path = tmp_path / layout.METRICS
    path.parent.mkdir()
    values = {0: 1.0, 2: 0.7, 4: 0.9, 6: 0.8, 8: 1.0}
    lines = (json.dumps({"step": step, "metrics": {EXACT_MATCH: value}}) for step, value in values.items())
    path.write_text("\n".join(lines), encoding="utf-8")
    save(tmp_path, 2, 4, 6)
    assert best(tmp_path, resumed_at=6).step == 4, "step 8 comes again"
    (tmp_path / "checkpoints" / "checkpoint-4" / "weights").unlink()
    assert best(tmp_path, resumed_at=6).step == 6
    assert best(tmp_path).protected() == set()


def test_rotation_leaves_what_is_protected(tmp_path: Path) -> None:
    save(tmp_path, 2, 4, 6, 8)
    checkpoints.rotate(tmp_path / "checkpoints", keep=1, protect={4})
    assert checkpoints.whole(tmp_path / "checkpoints") == [4, 8]
    checkpoints.rotate(tmp_path / "checkpoints", keep=1)
    assert checkpoints.whole(tmp_path / "checkpoints") == [8]
