"""The manifest of a published artifact: what it is, byte for byte, and what it was made from."""

from typing import Annotated, Literal

from pydantic import Field

from posttrain_contract.base import Model

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
ArtifactType = Literal["model", "dataset", "repository"]
"""``repository``: a folder in the Hub's layout, made by an UploadJob."""


class FileEntry(Model):
    """One file of an artifact."""

    path: str = Field(description="Path below the artifact folder, with forward slashes.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: Sha256


class InputEntry(Model):
    """One input that an artifact was made from: its lineage."""

    uri: str = Field(description="Where it was read.")
    digest: str | None = Field(default=None, description="The digest of the artifact that was read, if it was one.")


class Manifest(Model):
    """``artifact.json``: written last, so an artifact with a manifest is complete."""

    type: ArtifactType
    digest: Sha256 = Field(description="SHA-256 over the sorted lines 'sha256  size  path' of the files.")
    files: tuple[FileEntry, ...]
    bytes: int = Field(ge=0, description="Sum of the file sizes.")
    rows: int | None = Field(default=None, description="Rows of a dataset.")
    parameters: int | None = Field(default=None, description="Parameters of a model.")
    config_digest: Sha256 = Field(description="SHA-256 of the stage's specification and inputs, see `StageConfig`.")
    inputs: dict[str, InputEntry] = Field(default={}, description="What it was made from, by the input's name.")


class ArtifactSummary(Model):
    """What fits into a status: where the artifact is and how much."""

    uri: str = Field(max_length=2048, description="Where it lies.")
    digest: Sha256 = Field(description="SHA-256 over its files.")
    type: ArtifactType = Field(description="What it is; repository: a folder in the Hub's layout.")
    bytes: int = Field(ge=0, description="Sum of the file sizes.")
    rows: int | None = Field(default=None, ge=0, description="Rows of a dataset.")
    parameters: int | None = Field(default=None, ge=0, description="Parameters of a model.")
