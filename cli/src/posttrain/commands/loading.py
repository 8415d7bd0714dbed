"""What every command does with the manifests that it is given."""

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from posttrain.documents import Finding
from posttrain.manifests import Checked, check, find_files

EXIT_INVALID = 3

paths_argument = click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, allow_dash=True)
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def load(paths: Sequence[str]) -> Checked:
    """Reads and checks manifests; says on standard error which documents it left alone.

    Raises ``click.UsageError`` when there is nothing of ours in them.
    """
    files = find_files(paths)
    if not files:
        raise click.UsageError(f"there is no .yaml or .yml file in {', '.join(paths)}")
    try:
        checked = check(files, read_stdin=sys.stdin.buffer.read)
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}") from error
    for note in checked.notes:
        click.echo(note, err=True)
    if not checked.objects and not checked.findings:
        raise click.UsageError(f"there is no object of posttrain.dev in {', '.join(paths)}")
    return checked


def refuse(checked: Checked, *, as_json: bool, err: bool) -> NoReturn:
    """Shows every finding and exits with 3; ``err`` puts the lines on standard error."""
    if as_json:
        click.echo(json.dumps(document(checked), indent=2, ensure_ascii=False))
    else:
        for finding in checked.findings:
            click.echo(str(finding), err=err)
    count = len(checked.findings)
    click.echo(f"{count} {'error' if count == 1 else 'errors'}", err=True)
    raise SystemExit(EXIT_INVALID)


def document(checked: Checked) -> dict[str, Any]:
    """The verdict for machines."""
    return {
        "valid": not checked.findings,
        "objects": [_named(obj) for obj in checked.objects],
        "errors": [_finding(finding) for finding in checked.findings],
        "skipped": list(checked.notes),
    }


def _named(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = obj.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    return {"kind": obj["kind"], "namespace": known.get("namespace"), "name": known.get("name")}


def _finding(finding: Finding) -> dict[str, Any]:
    position = finding.position
    return {
        "file": position.file,
        "line": position.line,
        "column": position.column,
        "field": finding.field,
        "message": finding.message,
    }
