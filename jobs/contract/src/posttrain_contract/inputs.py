"""How an object names what it reads: another object's artifact, or bytes at a URI."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule
from posttrain_contract.hub import HubPattern

PUBLISHES: Final[Mapping[str, ArtifactType]] = {"FilterJob": "dataset", "FineTuneJob": "model", "RLJob": "model"}
"""What each kind publishes that another object can read. An UploadJob is the end of a pipeline."""

ReferencePattern = rf"^({'|'.join(PUBLISHES)})/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
UriPattern = rf"^(pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/].*|file:///.*|{HubPattern})$"

NoDots: Final = Rule(
    cel=r"!has(self.uri) || !self.uri.matches('(^|/)[.][.]?(/|$)')",
    check=lambda self: self.uri is None or not {".", ".."} & set(self.uri.split("/")),
    message="uri must not have '.' or '..' as a path segment",
)
"""A URI stays below the folder that it names."""

OrganizationAndName: Final = Rule(
    cel="!has(self.uri) || !self.uri.matches('^hf://(datasets|models|spaces)/[^/]+$')",
    check=lambda self: self.uri is None or re.match("hf://(datasets|models|spaces)/[^/]+$", self.uri) is None,
    message="uri must name a model as hf://ORG/NAME and a dataset as hf://datasets/ORG/NAME",
)

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
        description="pvc://CLAIM/PATH for a folder or file on a claim of the namespace; hf://ORG/NAME@REVISION for a "
        "model and hf://datasets/ORG/NAME@REVISION/PATH for files of a dataset (* and ** stand for names and folders) "
        "on the Hub, of which a branch is resolved once, by the first attempt; file:///PATH works only with "
        "`posttrain run`. Absent: from says what to read.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.from) != has(self.uri)",
            check=lambda self: (self.from_ is None) != (self.uri is None),
            message="set exactly one of from and uri",
        ),
        NoDots,
        OrganizationAndName,
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


AnswerFormat = Literal["gsm8k", "boxed", "choice", "regex"]
"""How the answer is found in a text; ``ANSWER_DESCRIPTION`` says what each means."""
ANSWER_DESCRIPTION: Final = (
    "How the final answer is found in the text. gsm8k: the number after the last ####, else in the last \\boxed{}; "
    "boxed: the content of the last \\boxed{}, equal as a number or else as LaTeX text; choice: a letter A to J, as in "
    "'Answer: B', '(B)' or \\boxed{B}; regex: what the group of pattern catches in its last match."
)
PATTERN_DESCRIPTION: Final = (
    "With answer: regex: a regular expression of Python with one group around the answer; absent: for other answers."
)


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise PydanticCustomError(
            "pattern", "not a regular expression ({text}); correct it", {"text": str(error)}
        ) from error
    if groups != 1:
        raise PydanticCustomError(
            "pattern",
            "has {groups} groups; put exactly one around the answer, and write others as (?:...)",
            {"groups": groups},
        )
    return pattern


AnswerPattern = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_one_group)]
"""A regular expression with one group. It is compiled here, and run where a search can be given up."""

PATTERN_WITH_REGEX: Final = Rule(
    cel="has(self.pattern) == (has(self.answer) && self.answer == 'regex')",
    check=lambda self: (self.pattern is not None) == (self.answer == "regex"),
    message="pattern goes with answer: regex, which needs it; with other answers leave it out",
)
"""The same for everything that has the fields ``answer`` and ``pattern``."""
