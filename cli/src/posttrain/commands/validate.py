"""``posttrain validate``: every error of manifests, without a cluster."""

import json

import click

from posttrain.commands.loading import document, json_option, load, paths_argument, refuse


@click.command("validate", short_help="Check manifests offline.")
@paths_argument
@json_option
def command(paths: tuple[str, ...], *, as_json: bool) -> None:
    """Check manifests offline and show every error of all of them.

    PATH is a YAML file, a folder, or - for standard input. Files are read in the order given; a folder is searched
    through for *.yaml and *.yml files, sorted by path. Objects of other API groups are skipped.

    Each error is one line on standard output: FILE:LINE:COLUMN: FIELD: what is wrong and what is allowed.

    \b
    Exit codes: 0 valid, 2 wrong usage, 3 invalid.
    """
    checked = load(paths)
    if checked.findings:
        refuse(checked, as_json=as_json, err=False)
    if as_json:
        click.echo(json.dumps(document(checked), indent=2, ensure_ascii=False))
    count = len(checked.objects)
    click.echo("1 object is valid" if count == 1 else f"{count} objects are valid", err=True)
