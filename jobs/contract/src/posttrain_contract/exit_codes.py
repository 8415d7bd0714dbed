"""What the exit status of a stage means.

Below 128 the same input fails again (permanent); 128 and up another attempt can succeed (retriable); 143 and 144 are
preemptions, which cost no retry. The numbers keep the convention of Kubeflow's ``ExitCode`` restart policy.
"""

from enum import IntEnum
from typing import Final

FIRST_RETRIABLE: Final = 128
"""Exit statuses from here on are retriable."""


class ExitCode(IntEnum):
    """Exit statuses that stage programs use; the operator prefers the StageResult and falls back on the number."""

    DONE = 0
    USAGE = 2
    """The configuration is invalid, or the stage was started with the wrong arguments."""
    DATA = 64
    """Bad or missing data: a column that is not there, a row that does not parse, an empty dataset."""
    MODEL = 65
    """A model, tokenizer or template that cannot be loaded or does not fit the configuration."""
    UNWRITABLE = 66
    """The output cannot be written: permissions or a read-only file system."""
    REFUSED = 67
    """The Hub refused an upload or an input: credentials, permissions, or a repository that is not there."""
    UNHANDLED = 70
    """An exception that nobody expected: a defect of the program."""
    OUT_OF_MEMORY = 71
    DIVERGED = 72
    """The loss or the gradients were no finite numbers twice at the same step."""
    ABORTED = 134
    KILLED = 137
    SEGFAULT = 139
    PREEMPTED = 143
    """Stopped on request after saving a checkpoint."""
    PREEMPTED_UNSAVED = 144
    """Stopped on request before anything could be saved."""
    PEER_LOST = 145
    """Another process of the gang ended or did not answer."""
    SERVER_LOST = 146
    """A rollout server ended, or its weights could not be brought up to date."""
    STORAGE = 147
    """The disk is full or the storage failed."""
    UNREACHABLE = 148
    """The Hub or another remote service did not answer after retries."""
    PORT_TAKEN = 149
    """A port that the stage must listen on is in use."""
    NOT_FINITE = 150
    """The loss or the gradients are no finite numbers, for the first time at this step: perhaps the hardware."""

    @property
    def retriable(self) -> bool:
        """Whether another attempt with the same input can succeed."""
        return self >= FIRST_RETRIABLE

    @property
    def preempted(self) -> bool:
        """Whether the stage was stopped on request, which costs no retry."""
        return self in (ExitCode.PREEMPTED, ExitCode.PREEMPTED_UNSAVED)

    @classmethod
    def is_preemption(cls, status: int | None) -> bool:
        """Whether a plain exit status means a stop on request."""
        return status in (cls.PREEMPTED, cls.PREEMPTED_UNSAVED)
