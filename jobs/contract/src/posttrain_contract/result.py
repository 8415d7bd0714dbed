"""What a stage answers when it ends: the termination message of its pod."""

from bisect import bisect_right
from typing import Literal

from pydantic import Field

from posttrain_contract.artifact import ArtifactSummary
from posttrain_contract.base import Model
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.hub import Revision

MAX_RESULT_BYTES = 4096
"""Kubernetes cuts a termination message at this size."""


class StageResult(Model):
    """How an attempt ended, and what came of it."""

    outcome: Literal["Succeeded", "Failed", "Preempted"]
    exit_code: ExitCode
    reason: str = Field(
        default="", max_length=64, description="One CamelCase word for machines, such as MissingColumn."
    )
    message: str = Field(default="", description="One or two sentences for people: what was found and what to do.")
    metrics: dict[str, float] = Field(default={}, description="Final figures, such as rowsKept, loss or exactMatch.")
    artifact: ArtifactSummary | None = None
    resumed_from: str | None = Field(default=None, description="The checkpoint that this attempt went on from.")
    revisions: dict[str, Revision] = Field(default={}, description="The commits of the inputs on the Hub, by name.")

    def message_bytes(self) -> bytes:
        """The JSON of this result in at most ``MAX_RESULT_BYTES``.

        The message is cut to fit; where that is not enough, the metrics are left out.
        """
        data = _fitting(self) or _fitting(self.model_copy(update={"metrics": {}}))
        if data is None:
            raise ValueError(f"the result does not fit into {MAX_RESULT_BYTES} bytes: {self.artifact}")
        return data


def _fitting(result: StageResult) -> bytes | None:
    lengths = range(len(result.message) + 1)
    fitting = bisect_right(lengths, MAX_RESULT_BYTES, key=lambda kept: len(_cut(result, kept)))
    return _cut(result, fitting - 1) if fitting else None


def _cut(result: StageResult, kept: int) -> bytes:
    """The JSON with so many characters of the message."""
    shown = result.model_copy(update={"message": result.message[:kept]})
    return shown.model_dump_json(by_alias=True, exclude_none=True).encode()
