"""The options that say where a local run keeps and finds things."""

from pathlib import Path

import click


def _parse_claims(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    claims: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not (name and equals and folder):
            raise click.BadParameter(f"expected NAME=DIR, found {value!r}")
        if name in claims:
            raise click.BadParameter(f"claim {name} is given twice")
        if not Path(folder).is_dir():
            raise click.BadParameter(f"claim {name}: {folder} is not a folder")
        claims[name] = Path(folder)
    return claims


workspace_option = click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".posttrain"),
    show_default=True,
    metavar="DIR",
    help="Where runs, artifacts, logs and the report are kept.",
)
hub_option = click.option(
    "--hub",
    envvar="POSTTRAIN_HUB_ENDPOINT",
    show_envvar=True,
    metavar="URL",
    help="Hub of hf:// inputs, else the public one, and of UploadJobs, which else only make the folder.",
)
claims_option = click.option(
    "--claim",
    "claims",
    multiple=True,
    callback=_parse_claims,
    metavar="NAME=DIR",
    help="Folder that stands for a claim in pvc://NAME/...; else WORKSPACE/claims/NAME. May be repeated.",
)
