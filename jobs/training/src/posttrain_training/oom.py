"""Running out of memory: the error says what to change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError, classify


@contextmanager
def naming(advice: Callable[[], str]) -> Iterator[None]:
    """Turns a lack of memory into ``StageError`` (OUT_OF_MEMORY) with this advice."""
    try:
        yield
    except Exception as error:
        if classify(error).code is not ExitCode.OUT_OF_MEMORY:
            raise
        told = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"spec.training: out of memory ({told}); {advice()}"
        raise StageError(ExitCode.OUT_OF_MEMORY, "OutOfMemory", message) from error
