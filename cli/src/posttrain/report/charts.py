"""Curves as SVG: pure functions from numbers to markup."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from statistics import fmean

Point = tuple[float, float]

MAX_POINTS = 240
"""Points of one curve; more are averaged in groups, because a screen shows no more."""

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 10, 24


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most ``limit`` points; each is the mean of a group of neighbours, of steps and of values."""
    if len(points) <= limit:
        return list(points)
    bounds = [round(index * len(points) / limit) for index in range(limit + 1)]
    groups = [points[start:end] for start, end in pairwise(bounds)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers that span ``low`` to ``high``; the two themselves when they are equal."""
    span = high - low
    if not span > abs(high) * 1e-12:
        return [low, high]
    raw = span / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999)
    return [step * index for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def curve_svg(points: Sequence[Point], *, label: str) -> str:
    """A line chart of (step, value) points as an ``<svg>`` element that takes its colours from the page's CSS.

    ``label`` names the figure for those who cannot see it. Needs at least one point; steps ascend.
    """
    shown = thin(points)
    xs, ys = [x for x, _ in shown], [y for _, y in shown]
    low, high = (min(ys), max(ys)) if min(ys) < max(ys) else (min(ys) - 0.5, max(ys) + 0.5)
    marks = ticks(low, high)
    x_scale = _Scale(xs[0], xs[-1], _LEFT, _WIDTH - _RIGHT)
    y_scale = _Scale(marks[0], marks[-1], _HEIGHT - _BOTTOM, _TOP)
    line = " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in shown)
    grid = "".join(_grid_line(y_scale(mark), _figure(mark)) for mark in marks)
    ends = "".join(
        f'<text class="tick" x="{x_scale(x):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{_figure(x)}</text>'
        for x, anchor in ((xs[0], "start"), (xs[-1], "end"))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{grid}{ends}'
        f'<polyline class="curve" points="{line}"/>'
        f'<circle class="dot" cx="{x_scale(xs[-1]):.1f}" cy="{y_scale(ys[-1]):.1f}" r="3"/></svg>'
    )


class _Scale:
    """Maps an interval of numbers to an interval of the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = low, (high - low) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) / self._span * self._length


def _grid_line(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
