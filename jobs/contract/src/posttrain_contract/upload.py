"""What an UploadJob can be told: publish an artifact as a Hub repository."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import Input

RepositoryPattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"

Language = Annotated[str, Field(min_length=1, max_length=32)]


TRAINING_DATA_INPUT = "trainingData.source"
"""Name of the model's dataset among the inputs of a run."""


class Repository(Model):
    """A repository of the Hugging Face Hub."""

    id: str = Field(pattern=RepositoryPattern, max_length=193, description="OWNER/NAME.")
    private: bool = Field(default=True, description="Only its owner may read it.")
    branch: str = Field(
        default="main",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        max_length=128,
        description="Branch that receives the files.",
    )


class Card(Model):
    """The head of the repository's README.md."""

    license: str | None = Field(
        default=None, max_length=64, description="Licence identifier, such as apache-2.0; absent: none is named."
    )
    language: tuple[Language, ...] = Field(default=(), max_length=64, description="Language codes, such as ja.")
    body: str | None = Field(
        default=None, max_length=100_000, description="Markdown that opens the card; absent: a summary is written."
    )


class TrainingData(Model):
    """The dataset that the model was trained on, published beside it and linked in its card."""

    source: Input = Field(description="A dataset artifact.")
    repository: Repository = Field(description="Where it goes.")


class UploadSpec(Model):
    """Publish a model or a dataset; the artifact says which. Datasets are converted to Parquet."""

    source: Input = Field(description="The artifact to publish.")
    repository: Repository = Field(description="Where it goes.")
    card: Card = Field(default=Card(), description="The repository's README.md.")
    training_data: TrainingData | None = Field(
        default=None, description="With a model: its dataset; absent: none is published."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.trainingData) || self.trainingData.repository.id != self.repository.id",
            check=lambda self: self.training_data is None or self.training_data.repository.id != self.repository.id,
            message="trainingData.repository.id must differ from repository.id",
        ),
    )

    needs: ClassVar[Mapping[str, ArtifactType]] = {TRAINING_DATA_INPUT: "dataset"}
    """The type that an artifact must have to be this input; an input that is not here takes any."""

    def inputs(self) -> dict[str, Input]:
        """What this job reads, by the field's path; the names of ``RunFacts.inputs``."""
        data = {TRAINING_DATA_INPUT: self.training_data.source} if self.training_data else {}
        return {"source": self.source, **data}
