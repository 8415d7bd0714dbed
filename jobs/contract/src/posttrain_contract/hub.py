"""Inputs on a Hub: how they are addressed, and which commit of them a run reads."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from posttrain_contract.base import Model

SCHEME: Final = "hf://"
DATASETS: Final = "datasets/"
_NAME: Final = r"[A-Za-z0-9][-A-Za-z0-9._]*"
_REVISION: Final = rf"(@{_NAME}(%2F{_NAME})*)?"
"""A slash in it is written as %2F, as in the Hub's own addresses."""
HubPattern: Final = rf"hf://{_NAME}/{_NAME}{_REVISION}|hf://datasets/{_NAME}/{_NAME}{_REVISION}(/[^/].*)?"
"""Only for datasets is there a path: of a model all that is needed is read."""

_ADDRESS: Final = re.compile(
    rf"hf://(?P<datasets>datasets/)?(?P<id>{_NAME}/{_NAME})(@(?P<revision>{_NAME}(%2F{_NAME})*))?(/(?P<path>.+))?"
)

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", max_length=40)]
"""A commit."""


@dataclass(frozen=True)
class HubAddress:
    """What an ``hf://`` URI names."""

    type: Literal["model", "dataset"]
    id: str
    """ORG/NAME."""
    revision: str | None
    """A branch, a tag or a commit; None: the repository's default branch."""
    path: str | None
    """The files of a dataset, with * for any characters of a name and ** for any folders; None: all of it."""

    @classmethod
    def parse(cls, uri: str) -> "HubAddress":
        """The parts of a URI that ``UriPattern`` accepts."""
        match = _ADDRESS.fullmatch(uri)
        if match is None:
            raise ValueError(f"{uri} is no hf:// address")
        kind: Literal["model", "dataset"] = "dataset" if match["datasets"] else "model"
        revision = match["revision"].replace("%2F", "/") if match["revision"] else None
        return cls(kind, match["id"], revision, match["path"])

    def at(self, revision: str) -> str:
        """The same as a URI that always names the same bytes."""
        path = f"/{self.path}" if self.path else ""
        return f"{SCHEME}{DATASETS if self.type == 'dataset' else ''}{self.id}@{revision}{path}"


class Pin(Model):
    """The commit of one input, found by the first attempt; later attempts read the same bytes."""

    uri: str = Field(description="The input as the object names it.")
    revision: Revision
    key: str = Field(description="The name of the folder that its files are fetched to.")


class Pins(Model):
    """The file ``layout.PINS`` of a run folder: the commits by the name of the input."""

    inputs: dict[str, Pin] = Field(default={})
