"""Errors named by the reaction that they want from the loop.

OperatorError
+-- InvalidSpec      the user must change the object: stalled until its generation changes
+-- Waiting          something else must happen first: look again later
+-- Conflict         somebody else wrote first: read again, soon and quietly
+-- ApiUnavailable   the cluster does not answer: back off
"""

from collections.abc import Sequence
from datetime import timedelta

from posttrain_contract.base import Problem


class OperatorError(Exception):
    """The root of the errors that the loop understands; any other exception is a defect."""


class InvalidSpec(OperatorError):
    """The object cannot be worked on as it is."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


class Waiting(OperatorError):
    """An input is not there yet; ``stalled`` says that it will not come by itself."""

    def __init__(self, reason: str, message: str, *, stalled: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.stalled = stalled


class Conflict(OperatorError):
    """The object exists already, or has changed since it was read."""


class ApiUnavailable(OperatorError):
    """The cluster could not be asked."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """What the cluster asked us to wait."""
