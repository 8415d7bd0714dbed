"""Failures with a name: every one says which exit code it means and what the user can do."""

import errno

from posttrain_contract.exit_codes import ExitCode

_FAILED_WRITES = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos ")
"""How safetensors and torch tell of a full disk: they raise errors of their own, torch's without the cause."""

_CPU_FULL = "DefaultCPUAllocator: can't allocate memory"
"""How torch tells that the memory of the CPU does not suffice."""


class StageError(Exception):
    """A failure that the stage understands.

    ``reason`` is one CamelCase word for machines; ``message`` names the field, column, file or row, and the remedy.
    """

    def __init__(self, code: ExitCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["StageError"], tuple[ExitCode, str, str]]:
        """Ranks send it to one another."""
        return type(self), (self.code, self.reason, self.message)


class Preempted(Exception):
    """The stage was asked to stop and did, before it was finished."""

    def __init__(self, *, saved: bool, step: int | None = None) -> None:
        at = "" if step is None else f" at step {step}"
        super().__init__(f"stopped on request{at}{' after saving a checkpoint' if saved else ''}")
        self.saved = saved
        self.step = step

    @property
    def code(self) -> ExitCode:
        """143 with a checkpoint, 144 without."""
        return ExitCode.PREEMPTED if self.saved else ExitCode.PREEMPTED_UNSAVED


def classify(error: BaseException) -> StageError:
    """The StageError that an exception amounts to; unknown ones are ``UnhandledException``."""
    if isinstance(error, StageError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StageError(
            ExitCode.STORAGE, "DiskFull", f"no space left while writing{_file(error)}; free some or use a larger claim"
        )
    if any(words in str(error) for words in _FAILED_WRITES):
        return StageError(
            ExitCode.STORAGE,
            "WriteFailed",
            f"a file could not be written ({_first_line(error)}); look whether the claim is full",
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StageError(
            ExitCode.UNWRITABLE, "Unwritable", f"permission denied{_file(error)}; make the store writable for this user"
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _CPU_FULL in str(error):
        return StageError(
            ExitCode.OUT_OF_MEMORY,
            "OutOfMemory",
            "out of memory; lower training.batchSize (raise gradientAccumulation to keep the step the same size) "
            "or the sequence length",
        )
    return StageError(ExitCode.UNHANDLED, "UnhandledException", f"{type(error).__name__}: {error}")


def _file(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
