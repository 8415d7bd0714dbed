"""How an object names what it reads: another object's artifact, or bytes at a URI."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule

PUBLISHES: Final[Mapping[str, ArtifactType]] = {"FilterJob": "dataset", "FineTuneJob": "model", "RLJob": "model"}
"""What each kind publishes that another object can read. An UploadJob is the end of a pipeline."""

ReferencePattern = rf"^({'|'.join(PUBLISHES)})/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
UriPattern = r"^(pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/].*|file:///.*)$"

NoDots: Final = Rule(
    cel=r"!has(self.uri) || !self.uri.matches('(^|/)[.][.]?(/|$)')",
    check=lambda self: self.uri is None or not {".", ".."} & set(self.uri.split("/")),
    message="uri must not have '.' or '..' as a path segment",
)
"""A URI stays below the folder that it names."""

Column = Annotated[str, Field(min_length=1, max_length=128)]


class Input(Model):
    """What a stage reads."""

    from_: str | None = Field(
        default=None,
        alias="from",
        pattern=ReferencePattern,
        max_length=280,
        description="Another object's artifact as KIND/NAME in the same namespace, such as FilterJob/hard-problems; "
        "absent: uri says what to read.",
    )
    uri: str | None = Field(
        default=None,
        pattern=UriPattern,
        max_length=1024,
        description="pvc://CLAIM/PATH for a folder or file on a claim of the namespace; file:///PATH works only with "
        "`posttrain run`. Absent: from says what to read.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.from) != has(self.uri)",
            check=lambda self: (self.from_ is None) != (self.uri is None),
            message="set exactly one of from and uri",
        ),
        NoDots,
    )


class TaskColumns(Model):
    """The columns of a dataset of tasks with a checkable answer."""

    prompt: Column = Field(default="prompt", description="Column of text that the model is given.")
    answer: Column = Field(default="answer", description="Column with the gold answer, compared with the model's.")


class TaskDataset(Input):
    """Tasks to solve and check."""

    columns: TaskColumns = Field(default=TaskColumns(), description="Which columns to read.")
    samples: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Read only the first so many rows; absent: all."
    )


AnswerFormat = Literal["gsm8k"]
"""How the answer is found in a text. ``gsm8k``: the number after the last ``####``, else in the last \\boxed{}."""
