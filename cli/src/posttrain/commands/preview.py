"""``posttrain preview``: the rows of FineTuneJobs as the model will see them."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
from posttrain_contract import layout
from posttrain_contract.hub import SCHEME
from posttrain_operator.api.resources import upstream_refs
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json, Ref
from rich.console import Console
from rich.text import Text

from posttrain.commands.loading import json_option, load, paths_argument, refuse
from posttrain.commands.places import claims_option, hub_option, workspace_option
from posttrain.local.objects import ObjectStore
from posttrain.local.workspace import LocalOptions, claim_of

EXIT_FAILED = 1


@click.command("preview", short_help="Show rows as the model will see them.")
@paths_argument
@click.option("--rows", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many of each job.")
@workspace_option
@claims_option
@hub_option
@json_option
def command(
    paths: tuple[str, ...], *, rows: int, workspace: Path, claims: dict[str, Path], hub: str | None, as_json: bool
) -> None:
    """Show the first rows of every FineTuneJob in PATH, rendered and tokenized, before anything is trained.

    Tokens that are learned are green, the others are dim; | stands between two tokens, an arrow for a new line. Data
    and models are looked for where `posttrain run` would, artifacts of other objects in the workspace.

    \b
    Exit codes: 0 shown, 1 a row or an input cannot be used, 2 wrong usage, 3 invalid manifest.
    """
    checked = load(paths)
    if checked.findings:
        refuse(checked, as_json=as_json, err=True)
    jobs = [obj for obj in checked.objects if obj["kind"] == "FineTuneJob"]
    if not jobs:
        raise click.UsageError(f"there is no FineTuneJob in {', '.join(paths)}")
    options = LocalOptions(workspace=workspace, claims=claims, hub_endpoint=hub)
    named = [{**obj, "metadata": {"namespace": "default", **obj["metadata"]}} for obj in jobs]
    shown = {f"FineTuneJob/{obj['metadata']['name']}": _rows(obj, options, rows) for obj in named}
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    console = Console()
    for name, found in shown.items():
        for row in found:
            console.print(Text(f"{name}  {row['place']}", style="bold"))
            for part in _lines(row):
                console.print(part)


def _rows(obj: Json, options: LocalOptions, count: int) -> list[dict[str, Any]]:
    """What the stage's own preparation makes of the first rows. Exits when it cannot."""
    what = {key: value for key, value in obj["spec"].items() if key != "run"}
    model, dataset = (_place(obj, field, options) for field in ("model", "dataset"))
    fetched = options.claim(claim_of(obj)) / obj["metadata"]["namespace"] / layout.HUB
    click.echo(f"FineTuneJob/{obj['metadata']['name']}: preparing rows", err=True)
    with tempfile.TemporaryDirectory(prefix="posttrain-preview-") as name:
        spec = Path(name) / "spec.json"
        spec.write_text(json.dumps(what), encoding="utf-8")
        command = [sys.executable, "-m", "posttrain_finetune.preview", "--spec", str(spec), "--rows", str(count)]
        done = subprocess.run(  # noqa: S603 - the stage program, as posttrain run starts it
            [*command, "--model", model, "--dataset", dataset, "--hub-folder", str(fetched), *_hub(options)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        _fail(f"FineTuneJob/{obj['metadata']['name']}: {(done.stderr.strip().splitlines() or ['it ended'])[-1]}")
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _hub(options: LocalOptions) -> list[str]:
    return ["--hub", options.hub_endpoint] if options.hub_endpoint is not None else []


def _place(obj: Json, field: str, options: LocalOptions) -> str:
    """Where an input lies: a path, or its address on the Hub. Exits when it is not there."""
    uri = obj["spec"][field].get("uri")
    if uri is None:
        uri = _published(upstream_refs(obj)[field], field, options)
    if uri.startswith(SCHEME):
        return str(uri)
    path = options.path(uri)
    if not path.exists():
        _fail(f"spec.{field}: nothing is at {uri}, which is {path} here")
    return str(path)


def _published(upstream: Ref, field: str, options: LocalOptions) -> str:
    stored = ObjectStore(options).read(upstream)
    artifact = read_status((stored or {}).get("status")).artifact
    if artifact is None:
        _fail(
            f"spec.{field}.from: {upstream.kind}/{upstream.name} has published nothing in {options.workspace}; run it"
        )
    return artifact.uri


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(EXIT_FAILED)


def _lines(row: dict[str, Any]) -> Iterator[Text]:
    if row["parts"] is None:
        yield Text("  nothing of its answer is left within training.maxLength; the row is dropped", style="yellow")
        return
    for part in row["parts"]:
        line = Text("  ")
        for text, learned in part:
            line.append(text.replace("\n", "\u21b5"), style="green" if learned else "dim")
            line.append("|", style="dim")
        yield line
