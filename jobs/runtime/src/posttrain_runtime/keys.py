"""The key that a run's trainer and rollout servers share: a file in the run folder, made by whoever comes first."""

import os
import secrets
from pathlib import Path

from posttrain_contract import layout

from posttrain_runtime.files import unique
from posttrain_runtime.store import locked

HEADER = "Authorization"


def server_key(run_folder: Path) -> str:
    """The key of this run; every caller gets the same one, also when several ask at once.

    The file can be read by its owner only.
    """
    path = run_folder / layout.SERVER_KEY
    if not path.exists():
        run_folder.mkdir(parents=True, exist_ok=True)
        # Under the lock, because what a killed process left under a temporary name is swept under it.
        with locked(run_folder):
            _create(path)
    return path.read_text(encoding="ascii")


def authorization(key: str) -> str:
    """The value of the ``HEADER`` that carries a key."""
    return f"Bearer {key}"


def _create(path: Path) -> None:
    temporary = path.with_name(f"{unique(path.name)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        # A link fails when the name is taken, where a rename would replace the key that others have read.
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
