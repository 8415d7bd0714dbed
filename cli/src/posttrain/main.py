"""The command line: options that every call has, and which module holds which subcommand."""

import importlib
from typing import NoReturn

import click

from posttrain import __version__

_COMMANDS = {
    "plan": "Estimate the memory that FineTuneJobs need on each GPU.",
    "preview": "Show rows of FineTuneJobs as the model will see them.",
    "run": "Run manifests on this machine, to their end.",
    "validate": "Check manifests offline and show every error with file and line.",
}
"""Subcommands with the line that ``--help`` shows, so that help imports none of them."""


class _LazyGroup(click.Group):
    """A group whose subcommands live in ``posttrain.commands`` and are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"posttrain.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="posttrain", message="%(prog)s %(version)s")
def cli() -> None:
    """Post-train language models from YAML manifests: filter data, fine-tune, improve by rewards, publish.

    The same files run here with `posttrain run` and on a cluster with `kubectl apply`.

    \b
    Exit codes: 0 done, 1 a job failed, 2 wrong usage, 3 invalid manifest, 130 interrupted.
    """


def main() -> NoReturn:
    """Runs the command of ``sys.argv`` and exits with its code."""
    raise SystemExit(cli(prog_name="posttrain"))
