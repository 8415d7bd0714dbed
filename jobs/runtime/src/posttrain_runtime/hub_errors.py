"""What the Hub's client raises, as failures with a name."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from posttrain_contract.exit_codes import ExitCode

from posttrain_runtime.errors import StageError

TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of the variable
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _SERVER_ERROR = 401, 403, 404, 500
_PASSING: Final = (408, 409, 425, 429)
"""Answers of a Hub that is busy."""
_OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of the own file system, which ``errors.classify`` names."""


@contextmanager
def explained(what: str, *, endpoint: str, remedy: str) -> Iterator[None]:
    """Turns what the client raises into ``StageError``.

    REFUSED, with ``remedy``, for what the Hub will not do; UNREACHABLE for what may work later. ``what`` names the
    field and the repository.
    """
    import httpx2  # noqa: PLC0415 - comes with the client
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refusal(what, endpoint, remedy, error) from error
    # The library for large files raises RuntimeError alone, and a portal on the way answers without JSON.
    except (httpx2.HTTPError, OSError, RuntimeError, json.JSONDecodeError) as error:
        if isinstance(error, OSError) and error.errno in _OURS:
            raise
        message = f"{what}: the Hub at {endpoint} did not answer ({type(error).__name__}: {error}); try again later"
        raise StageError(ExitCode.UNREACHABLE, "HubUnreachable", message) from error


def _refusal(what: str, endpoint: str, remedy: str, error: Any) -> StageError:
    status = error.response.status_code if error.response is not None else 0
    said = f"{what}: the Hub at {endpoint} answered {status}"
    elsewhere = error.response is not None and error.response.url.host != urlsplit(endpoint).hostname
    if status in _PASSING or status >= _SERVER_ERROR or (status == _FORBIDDEN and elsewhere):
        # Large files come from another host by an address that is signed for a while.
        return StageError(ExitCode.UNREACHABLE, "HubUnreachable", f"{said}; try again later")
    if type(error).__name__ == "RevisionNotFoundError":
        return StageError(ExitCode.REFUSED, "RevisionNotFound", f"{said}: there is no such revision; correct it")
    if type(error).__name__ == "GatedRepoError":
        return StageError(ExitCode.REFUSED, "GatedRepository", f"{said}: it is gated, so accept its terms; {remedy}")
    if status in (_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND):
        return StageError(ExitCode.REFUSED, "HubRefused", f"{said}; {remedy}")
    detail = " ".join((getattr(error, "server_message", None) or str(error)).split())
    return StageError(ExitCode.REFUSED, "HubRefused", f"{said}: {detail}")
