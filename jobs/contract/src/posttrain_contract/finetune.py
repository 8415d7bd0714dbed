"""What a FineTuneJob can be told: train a model on demonstrations or on preferences."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.adapter import ADAPTER_INPUT, Adapter, Export
from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule
from posttrain_contract.distributed import Distributed
from posttrain_contract.evaluation import EVALUATION_INPUT, TuningEvaluation
from posttrain_contract.examples import ExampleDataset
from posttrain_contract.inputs import Input
from posttrain_contract.preference import Dpo
from posttrain_contract.tracking import Tracking
from posttrain_contract.training import Checkpoints, Training


class FineTuneTraining(Training):
    """The optimization of fine-tuning."""

    max_length: int = Field(default=1024, ge=8, le=1_048_576, description="Tokens of one row; longer rows are cut.")
    packing: bool = Field(
        default=False,
        description="With method sft: several rows share one of maxLength tokens and do not see each other; batchSize "
        "counts the packed ones.",
    )
    neftune_alpha: float | None = Field(
        default=None, gt=0, le=1000, description="Scale of NEFTune's noise on the embeddings; absent: none."
    )


class FineTuneSpec(Model):
    """Train a model on demonstrations or preferences and publish it as a model artifact."""

    method: Literal["sft", "dpo"] = Field(
        default="sft",
        description="sft: next-token loss on the completion; dpo: direct preference optimization on pairs.",
    )
    model: Input = Field(
        description="A model artifact or a Hugging Face model folder with tokenizer and chat template."
    )
    dataset: ExampleDataset = Field(description="The demonstrations or the pairs.")
    adapter: Adapter | None = Field(default=None, description="Train an adapter; absent: all weights.")
    training: FineTuneTraining = Field(default=FineTuneTraining(), description="The optimization.")
    dpo: Dpo | None = Field(default=None, description="Settings of method dpo; absent: their defaults.")
    distributed: Distributed = Field(default=Distributed(), description="Processes and nodes.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="Saving of training state.")
    evaluation: TuningEvaluation | None = Field(default=None, description="Evaluation; absent: none.")
    tracking: Tracking | None = Field(default=None, description="Copies of the figures for other tools; absent: none.")
    export: Export = Field(default=Export(), description="What the artifact holds.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.adapter) || !has(self.export) || !has(self.export.merge) || self.export.merge",
            check=lambda self: self.adapter is not None or self.export.merge,
            message="export.merge: false needs an adapter; without one all weights are the artifact",
        ),
        Rule(
            cel="(has(self.method) && self.method == 'dpo')"
            " == (has(self.dataset.format) && self.dataset.format == 'preference')",
            check=lambda self: (self.method == "dpo") == (self.dataset.format == "preference"),
            message="method: dpo and dataset.format: preference go together",
        ),
        Rule(
            cel="has(self.dataset.validation) == (has(self.evaluation) && has(self.evaluation.perplexity)"
            " && self.evaluation.perplexity)",
            check=lambda self: (
                (self.dataset.validation is not None) == (self.evaluation is not None and self.evaluation.perplexity)
            ),
            message="evaluation.perplexity: true and dataset.validation, the share of rows that it judges, go together",
        ),
        Rule(
            cel="!has(self.dataset.validation) || !has(self.method) || self.method == 'sft'",
            check=lambda self: self.dataset.validation is None or self.method == "sft",
            message="dataset.validation belongs to method: sft; pairs have no perplexity",
        ),
        Rule(
            cel="!has(self.dpo) || (has(self.method) && self.method == 'dpo')",
            check=lambda self: self.dpo is None or self.method == "dpo",
            message="dpo belongs to method: dpo",
        ),
        Rule(
            cel="!has(self.training) || !has(self.training.packing) || !self.training.packing"
            " || !has(self.method) || self.method == 'sft'",
            check=lambda self: not self.training.packing or self.method == "sft",
            message="training.packing belongs to method: sft; pairs are not packed",
        ),
        Rule(
            cel="!has(self.training) || !has(self.training.gradientCheckpointing)"
            " || self.training.gradientCheckpointing != 'selective'"
            " || ((!has(self.method) || self.method == 'sft')"
            " && !(has(self.adapter) && has(self.distributed) && has(self.distributed.strategy)"
            " && self.distributed.strategy == 'zero3'))",
            check=lambda self: (
                self.training.gradient_checkpointing != "selective"
                or (self.method == "sft" and not (self.adapter and self.distributed.strategy == "zero3"))
            ),
            message="training.gradientCheckpointing: selective belongs to method: sft, and not to an adapter under "
            "zero3; take full",
        ),
        Rule(
            cel="!has(self.adapter) || !has(self.adapter.quantization) || !has(self.distributed)"
            " || !has(self.distributed.strategy) || !(self.distributed.strategy in ['zero3', 'fsdp2'])",
            check=lambda self: (
                self.adapter is None
                or self.adapter.quantization is None
                or self.distributed.strategy not in ("zero3", "fsdp2")
            ),
            message="adapter.quantization and distributed.strategy zero3 or fsdp2 do not go together, since quantized "
            "weights are not split; take ddp, zero1 or zero2",
        ),
    )

    needs: ClassVar[Mapping[str, ArtifactType]] = {
        "model": "model",
        "dataset": "dataset",
        ADAPTER_INPUT: "model",
        EVALUATION_INPUT: "dataset",
    }
    """The type that an artifact must have to be this input; an input that is not here takes any."""

    def inputs(self) -> dict[str, Input]:
        """What this job reads, by the field's path; the names of ``RunFacts.inputs``."""
        adapter = {ADAPTER_INPUT: self.adapter.initial} if self.adapter and self.adapter.initial else {}
        generate = self.evaluation.generate if self.evaluation else None
        held_out = {EVALUATION_INPUT: generate.dataset} if generate else {}
        return {"model": self.model, "dataset": self.dataset, **adapter, **held_out}
