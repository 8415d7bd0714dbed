"""The lines that are shown while a run goes on."""

from collections.abc import Callable
from typing import Any

import pytest
from posttrain.live import LiveDisplay, PlainDisplay, choose_display, describe

Json = dict[str, Any]
MakeObject = Callable[..., Json]
PROGRESS = {
    "phase": "training",
    "percent": 41,
    "step": 410,
    "totalSteps": 1000,
    "etaSeconds": 3725,
    "headline": "loss 0.831",
    "updatedAt": "2026-05-01T10:00:00Z",
}


def test_a_running_stage_tells_how_far_it_is_and_the_figure_that_matters(make_object: MakeObject) -> None:
    line = describe(make_object("FineTuneJob/sft", "Running", progress=PROGRESS))
    assert line.text() == "FineTuneJob/sft  Running     41%  training  410/1,000  ETA 1h 02m  loss 0.831"


def test_a_running_stage_without_figures_tells_what_it_does(make_object: MakeObject) -> None:
    progress = {"phase": "loading model", "step": 0, "updatedAt": "2026-05-01T10:00:00Z"}
    assert describe(make_object("RLJob/x", "Running", progress=progress)).detail == "loading model"


def test_a_waiting_stage_tells_why(make_object: MakeObject) -> None:
    obj = make_object("RLJob/x", "Waiting", reason="WaitingForArtifact", message="FineTuneJob/sft is Running")
    assert describe(obj).text() == "RLJob/x  Waiting          WaitingForArtifact: FineTuneJob/sft is Running"


def test_a_reason_that_is_the_phase_is_not_said_twice(make_object: MakeObject) -> None:
    obj = make_object("RLJob/x", "Starting", reason="Starting", message="creating pods")
    assert describe(obj).text() == "RLJob/x  Starting         creating pods"


def test_a_later_attempt_says_its_number(make_object: MakeObject) -> None:
    attempts = [{"number": n, "startTime": "2026-05-01T10:00:00Z"} for n in (1, 2)]
    obj = make_object("RLJob/x", "Pending", reason="Retrying", message="attempt 1 ended: ServerLost", attempts=attempts)
    assert describe(obj).detail == "attempt 2  Retrying: attempt 1 ended: ServerLost"


def test_a_finished_stage_says_how_long_it_took(pipeline: list[Json]) -> None:
    assert describe(pipeline[1]).text() == "FineTuneJob/sft  Succeeded        in 1m 15s"


def test_a_message_cannot_steer_the_terminal(make_object: MakeObject) -> None:
    obj = make_object("RLJob/x", "Failed", reason="Bad", message="two\nlines \x1b[31mred\x1b]0;title\x07")
    assert describe(obj).detail == "Bad: two lines  [31mred ]0;title "


@pytest.mark.parametrize("status", [None, {}, {"phase": "Dancing"}, {"conditions": 5}])
def test_an_object_without_a_readable_status_is_pending(status: Any) -> None:
    assert describe({"kind": "RLJob", "metadata": {"name": "x"}, "status": status}).phase == "Pending"


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines_of(written: list[str]) -> list[str]:
    """The lines without their time of day."""
    return [line.split("  ", 1)[1] for line in written]


def test_plain_lines_come_when_a_phase_or_reason_changes(make_object: MakeObject) -> None:
    written: list[str] = []
    with PlainDisplay(written.append, clock=Clock()) as display:
        waiting = make_object("RLJob/grpo", "Waiting", reason="WaitingForArtifact", message="sft is Pending")
        display.watch([make_object("FineTuneJob/sft", "Starting"), waiting])
        display.watch([make_object("FineTuneJob/sft", "Starting"), waiting])
        display.watch([make_object("FineTuneJob/sft", "Running", progress=PROGRESS), waiting])
    assert [line[:26].split() for line in lines_of(written)] == [
        ["FineTuneJob/sft", "Starting"],
        ["RLJob/grpo", "Waiting"],
        ["FineTuneJob/sft", "Running"],
    ]


def test_plain_lines_of_a_running_stage_come_every_ten_seconds_when_there_is_news(make_object: MakeObject) -> None:
    written: list[str] = []
    clock = Clock()
    display = PlainDisplay(written.append, clock=clock)
    for second in range(25):
        clock.now = 1000.0 + second
        display.watch([make_object("FineTuneJob/sft", "Running", progress={**PROGRESS, "step": second})])
    assert [line.split("training  ")[1].split("/")[0] for line in written] == ["0", "10", "20"]
    clock.now += 60
    display.watch([make_object("FineTuneJob/sft", "Running", progress={**PROGRESS, "step": 20})])
    assert len(written) == 3


def test_sentences_are_written_at_once() -> None:
    written: list[str] = []
    PlainDisplay(written.append).say("FilterJob/x: nothing to do, its artifact is published")
    assert lines_of(written) == ["FilterJob/x: nothing to do, its artifact is published"]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_PROGRESS": "1"}])
def test_live_lines_are_for_terminals_that_want_them(environment: dict[str, str]) -> None:
    assert isinstance(choose_display(write=print, is_terminal=True, environment={}), LiveDisplay)
    assert isinstance(choose_display(write=print, is_terminal=True, environment=environment), PlainDisplay)
    assert isinstance(choose_display(write=print, is_terminal=False, environment={}), PlainDisplay)


def test_live_lines_show_bar_step_and_sentences(
    make_object: MakeObject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with LiveDisplay() as display:
        display.say("[bold]as it is[/bold]")
        display.watch([make_object("FineTuneJob/sft", "Running", progress=PROGRESS)])
    shown = capsys.readouterr().err
    assert "[bold]as it is[/bold]" in shown
    for part in ("FineTuneJob/sft", "Running", "━", "41%", "410/1,000", "loss 0.831"):
        assert part in shown
