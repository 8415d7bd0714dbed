"""The report: what it shows, that nothing in it is taken for markup, and that it needs nothing else."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posttrain.report.charts import MAX_POINTS, curve_svg, thin, ticks
from posttrain.report.data import gather, read_curves, read_samples
from posttrain.report.page import installed_versions, render, write_report
from posttrain.stages import Stage, read_stage
from posttrain_contract import layout

Json = dict[str, Any]
WriteHistory = Callable[[Path, Sequence[tuple[int, Mapping[str, float]]]], None]
WriteSamples = Callable[[Path, Sequence[Json]], None]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
EVIL = "<script>alert('x')</script>&\"'"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, and whether each is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def stages_of(objects: list[Json], root: Path) -> list[Stage]:
    return [read_stage(obj, root / obj["metadata"]["name"]) for obj in objects]


def page_of(stages: list[Stage]) -> Page:
    return Page(render(gather(stages), now=NOW, versions={"posttrain": "1"}))


def sample(step: int, prompt: str, *, correct: bool, completion: str = "#### 1") -> Json:
    return {"step": step, "prompt": prompt, "completion": completion, "gold": "1", "correct": correct}


def test_the_pipeline_its_lineage_and_its_attempts(pipeline: list[Json], tmp_path: Path) -> None:
    page = page_of(stages_of(pipeline, tmp_path))
    for part in ("FilterJob/hard", "1,200", "152,064 parameters", "pvc://p/hard", "cdcdcdcdcdcd", "abababababab"):
        assert part in page.text
    assert {"title": "cd" * 32, "class": "soft"} in page.all("code")
    for part in ("Preempted", "(exit status 143)", "from checkpoint-100", "1m 15s", "2026-05-01 10:00:00 UTC"):
        assert part in page.text


def test_lineage_comes_from_the_manifest_of_the_artifact_when_there_is_one(
    pipeline: list[Json], tmp_path: Path
) -> None:
    from posttrain_contract.artifact import InputEntry, Manifest

    entry = InputEntry(uri="pvc://posttrain/from-manifest")
    digest = "12" * 32
    manifest = Manifest(
        type="dataset", digest=digest, files=(), bytes=0, config_digest=digest, inputs={"source": entry}
    )
    folder = tmp_path / "hard"
    folder.mkdir()
    (folder / layout.MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    assert "pvc://posttrain/from-manifest" in page_of(stages_of(pipeline, tmp_path)).text


def test_a_curve_has_a_point_for_each_step(pipeline: list[Json], tmp_path: Path, write_history: WriteHistory) -> None:
    write_history(tmp_path / "sft", [(step, {"loss": 5.0 / step, "learningRate": 0.1}) for step in range(1, 51)])
    page = page_of(stages_of(pipeline, tmp_path))
    lines = page.all("polyline")
    assert [len((line["points"] or "").split()) for line in lines] == [50, 50]
    assert page.texts.index("loss") < page.texts.index("learningRate")


def test_of_two_values_for_a_step_the_later_line_holds(tmp_path: Path, write_history: WriteHistory) -> None:
    write_history(
        tmp_path, [(1, {"loss": 5.0}), (3, {"loss": 9.0}), (2, {"loss": 8.0}), (2, {"loss": 4.0}), (3, {"loss": 3.0})]
    )
    with (tmp_path / layout.METRICS).open("a") as file:
        file.write('{"step": 4, "met')
    (curve,) = read_curves(tmp_path / layout.METRICS)
    assert curve.points == ((1, 5.0), (2, 4.0), (3, 3.0))


def test_a_figure_with_one_step_is_no_curve_and_the_important_ones_come_first(
    tmp_path: Path, write_history: WriteHistory
) -> None:
    steps = [(step, {"aaa": 1.0, "exactMatch": 0.5, "reward": 0.1, "loss": 1.0}) for step in (1, 2)]
    write_history(tmp_path, [*steps, (3, {"once": 1.0})])
    assert [curve.name for curve in read_curves(tmp_path / layout.METRICS)] == ["loss", "reward", "exactMatch", "aaa"]


@given(
    values=st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=1, max_size=700),
)
def test_any_curve_is_drawn_within_its_frame(values: list[float]) -> None:
    svg = curve_svg(list(enumerate(values)), label="x")
    Page(svg)
    (points,) = re.findall(r'polyline class="curve" points="([^"]*)"', svg)
    drawn = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(drawn) == min(len(values), MAX_POINTS)
    assert all(0 <= x <= 360 and 0 <= y <= 190 for x, y in drawn)


def test_a_long_curve_is_averaged_in_groups() -> None:
    thinned = thin([(step, float(step)) for step in range(1000)], 10)
    assert len(thinned) == 10
    assert thinned[0] == (49.5, 49.5)
    assert math.isclose(sum(y for _, y in thinned) / 10, 499.5)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.5, 1]), (0.0, 4.0, [0, 1, 2, 3, 4]), (5.0, 5.0, [5, 5]), (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1])],
)
def test_ticks_are_round_numbers_around_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_answers_to_the_same_task_stand_side_by_side(
    pipeline: list[Json], tmp_path: Path, write_samples: WriteSamples
) -> None:
    write_samples(
        tmp_path / "sft",
        [
            sample(0, "always right", correct=True),
            sample(0, "learned", correct=False, completion="what?"),
            sample(0, "asked once", correct=False),
            sample(100, "learned", correct=False, completion="in between"),
            sample(500, "learned", correct=True, completion="so it is\n#### 1"),
            sample(500, "always right", correct=True),
        ],
    )
    first, second = read_samples(tmp_path / "sft" / layout.SAMPLES)
    assert (first.prompt, first.before.completion, first.after.completion) == ("learned", "what?", "so it is\n#### 1")
    assert (first.before.correct, first.after.correct, first.after.step) == (False, True, 500)
    assert second.prompt == "always right"
    text = page_of(stages_of(pipeline, tmp_path)).text
    assert text.index("what?") < text.index("✓ right") < text.index("so it is")
    assert "asked once" not in text


def test_everything_from_outside_is_escaped(
    pipeline: list[Json], tmp_path: Path, write_history: WriteHistory, write_samples: WriteSamples
) -> None:
    obj = pipeline[1]
    status = obj["status"]
    status["attempts"][0] |= {"reason": EVIL, "message": EVIL}
    status["inputs"] = {EVIL: {"uri": f"pvc://x/{EVIL}", "digest": EVIL}}
    status["metrics"][EVIL] = 1.0
    status["phase"], status["conditions"][0]["message"] = "Failed", EVIL
    status["conditions"][1]["status"] = "False"
    obj["metadata"]["name"] = "sft"
    write_history(tmp_path / "sft", [(step, {EVIL: 1.0}) for step in (1, 2)])
    write_samples(tmp_path / "sft", [sample(step, EVIL, correct=True, completion=EVIL) for step in (0, 1)])
    page = page_of(stages_of(pipeline, tmp_path))
    assert not page.all("script")
    assert page.text.count("alert('x')") >= 9


def test_the_page_needs_nothing_from_elsewhere(
    pipeline: list[Json], tmp_path: Path, write_history: WriteHistory, write_samples: WriteSamples
) -> None:
    long = "long " * 100_000
    for name in ("sft", "grpo"):
        write_history(tmp_path / name, [(s, {f"figure{n}": s / 7 for n in range(20)}) for s in range(5000)])
        samples = [sample(step, f"{n} {long}", correct=True, completion=long) for step in (0, 9) for n in range(16)]
        write_samples(tmp_path / name, samples)
    html = render(gather(stages_of(pipeline, tmp_path)), now=NOW, versions=installed_versions())
    page = Page(html)
    assert len(html.encode()) < 1_000_000
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not any(name in attributes for _, attributes in page.elements for name in ("src", "href"))
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_a_run_without_any_file_still_has_a_report(make_object: Callable[..., Json], tmp_path: Path) -> None:
    failed = make_object("FilterJob/x", "Failed", reason="DataError", message="there is no column pass_rate")
    path = write_report(tmp_path / "report.html", gather(stages_of([failed], tmp_path)))
    assert "DataError: there is no column pass_rate" in Page(path.read_text(encoding="utf-8")).text
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(pipeline: list[Json], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    (tmp_path / ".report.html.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_report(tmp_path / "report.html", gather(stages_of(pipeline, tmp_path)))
    assert (tmp_path / "report.html").read_text() == "old"
