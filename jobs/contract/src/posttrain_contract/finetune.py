"""What a FineTuneJob can be told: train a model on demonstrations."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import ExampleDataset, Input
from posttrain_contract.training import (
    EVALUATION_INPUT,
    Adapter,
    Checkpoints,
    Distributed,
    Evaluation,
    Export,
    SftTraining,
)


class FineTuneSpec(Model):
    """Train a model on demonstrations and publish it as a model artifact."""

    method: Literal["sft"] = Field(default="sft", description="sft: next-token loss on the completion.")
    model: Input = Field(
        description="A model artifact or a Hugging Face model folder with tokenizer and chat template."
    )
    dataset: ExampleDataset = Field(description="The demonstrations.")
    adapter: Adapter | None = Field(default=None, description="Train an adapter; absent: all weights.")
    training: SftTraining = Field(default=SftTraining(), description="The optimization.")
    distributed: Distributed = Field(default=Distributed(), description="Processes and nodes.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="Saving of training state.")
    evaluation: Evaluation | None = Field(default=None, description="Evaluation by generation; absent: none.")
    export: Export = Field(default=Export(), description="What the artifact holds.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.adapter) || !has(self.export) || !has(self.export.merge) || self.export.merge",
            check=lambda self: self.adapter is not None or self.export.merge,
            message="export.merge: false needs an adapter; without one all weights are the artifact",
        ),
    )

    needs: ClassVar[Mapping[str, ArtifactType]] = {"model": "model", "dataset": "dataset", EVALUATION_INPUT: "dataset"}
    """The type that an artifact must have to be this input; an input that is not here takes any."""

    def inputs(self) -> dict[str, Input]:
        """What this job reads, by the field's path; the names of ``RunFacts.inputs``."""
        held_out = {EVALUATION_INPUT: self.evaluation.generate.dataset} if self.evaluation else {}
        return {"model": self.model, "dataset": self.dataset, **held_out}
