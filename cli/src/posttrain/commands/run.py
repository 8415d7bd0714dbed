"""``posttrain run``: objects run on this machine, to their end."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json

from posttrain.commands.loading import json_option, load, paths_argument, refuse
from posttrain.commands.places import claims_option, hub_option, workspace_option
from posttrain.live import Display, choose_display
from posttrain.local.session import InterruptedRunError, run_local
from posttrain.local.workspace import LocalOptions, WorkspaceBusyError, pod_logs, run_folder
from posttrain.report.data import gather
from posttrain.report.page import write_report
from posttrain.stages import Stage, read_stage
from posttrain.summary import document, failure, pick_log, shown_path, summary

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
REPORT = "report.html"


@click.command("run", short_help="Run manifests on this machine.")
@paths_argument
@workspace_option
@claims_option
@hub_option
@json_option
def command(
    paths: tuple[str, ...], *, workspace: Path, claims: dict[str, Path], hub: str | None, as_json: bool
) -> None:
    """Run manifests on this machine, to their end.

    PATH is a YAML file, a folder (searched through for *.yaml and *.yml, sorted by path), or - for standard input.
    The manifests are checked first, as by `posttrain validate`. Stages whose artifact is published are not run again.

    Ctrl-C saves a checkpoint and stops; the same command goes on from there.

    \b
    Exit codes: 0 done, 1 a job failed, 2 wrong usage, 3 invalid manifest, 130 interrupted.
    """
    checked = load(paths)
    if checked.findings:
        refuse(checked, as_json=as_json, err=True)
    options = LocalOptions(workspace=workspace, claims=claims, hub_endpoint=hub)
    objects, worked = _run(checked.objects, options, as_json=as_json)
    stages = [read_stage(obj, run_folder(obj, options)) for obj in objects]
    if not worked:
        click.echo("nothing to do: every artifact is published already", err=True)
    report = _write_report(workspace / REPORT, stages)
    succeeded = all(stage.succeeded for stage in stages)
    if as_json:
        _print_json(document(stages, outcome="Succeeded" if succeeded else "Failed", report=report))
    else:
        click.echo(summary(stages, report=report))
    if not succeeded:
        _explain_failures(list(zip(stages, objects, strict=True)), options)
        raise SystemExit(EXIT_FAILED)


def _run(objects: Sequence[Json], options: LocalOptions, *, as_json: bool) -> tuple[tuple[Json, ...], bool]:
    """The objects after the run, and whether any of them was worked on. Exits when there is no end to show."""
    display = choose_display(write=lambda line: click.echo(line, err=True))
    watcher = _Watcher(display)
    try:
        with display:
            ended = asyncio.run(run_local(objects, options, watch=watcher.watch, say=display.say))
    except (InterruptedRunError, KeyboardInterrupt):
        click.echo("interrupted; the same command goes on from the last checkpoints", err=True)
        if as_json:
            _print_json({"outcome": "Interrupted"})
        raise SystemExit(EXIT_INTERRUPTED) from None
    except WorkspaceBusyError as busy:
        raise click.ClickException(str(busy)) from busy
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise click.ClickException(f"workspace {shown_path(options.workspace)}: {what}") from error
    return ended, watcher.worked


class _Watcher:
    """Passes objects on to the display and notices whether there was anything to do."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self.worked = False

    def watch(self, objects: Sequence[Json]) -> None:
        self.worked = self.worked or not all(read_status(obj.get("status")).holds("Succeeded") for obj in objects)
        self._display.watch(objects)


def _write_report(path: Path, stages: Sequence[Stage]) -> Path | None:
    """The path of the report, or None when it cannot be written: the run itself is not lost by that."""
    try:
        return write_report(path, gather(stages))
    except OSError as error:
        click.echo(f"warning: no report at {shown_path(path)}: {error.strerror}", err=True)
        return None


def _explain_failures(pairs: Sequence[tuple[Stage, Json]], options: LocalOptions) -> None:
    for stage, obj in pairs:
        if not stage.succeeded:
            click.echo("\n" + failure(stage, pick_log(stage, pod_logs(obj, options))), err=True)
    hint = "mend the cause and run the same command again: finished stages are not repeated"
    click.echo(f"\nhint: {hint}", err=True)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
