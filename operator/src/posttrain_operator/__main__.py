"""``python -m posttrain_operator``: settings from the environment, then the work."""

import argparse
import asyncio
import gc
import os
import sys
from importlib.metadata import version

from posttrain_operator.handlers import check, operate
from posttrain_operator.logs import set_up
from posttrain_operator.rest import NoClusterError, load_configuration
from posttrain_operator.settings import SettingsError, from_environment


def main() -> int:
    """Runs the operator until it is told to end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="posttrain-operator", description="Settings: POSTTRAIN_*, docs/operator.md.")
    parser.add_argument("--version", action="version", version=f"posttrain-operator {version('posttrain-operator')}")
    parser.add_argument("--check", action="store_true", help="look whether all that it needs is installed, and end")
    arguments = parser.parse_args()
    try:
        settings = from_environment(os.environ)
        if arguments.check:
            check(settings)
            return 0
        asyncio.run(load_configuration())  # a clear word now, instead of tries for ever
    except (NoClusterError, SettingsError) as error:
        sys.stderr.write(f"posttrain-operator: {error}\n")
        return 2
    set_up(settings.log_level)
    _let_old_objects_be()
    asyncio.run(operate(settings))
    return 0


def _let_old_objects_be() -> None:
    """Python looks for cycles in the whole cache whenever it has grown, and stops every pass for tenths of a second.

    The controller has it done every few minutes instead.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1_000_000)


if __name__ == "__main__":
    sys.exit(main())
