"""What a FilterJob can be told: keep the rows that are worth training on."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from posttrain_contract.artifact import ArtifactType
from posttrain_contract.base import Model, Rule
from posttrain_contract.inputs import Column, Input


class ByLabel(Model):
    """Keep rows whose numeric label lies in a range."""

    column: Column = Field(description="Column with the label, a finite number or null.")
    min: float | None = Field(default=None, description="Smallest label that is kept; absent: no lower bound.")
    max: float | None = Field(default=None, description="Largest label that is kept; absent: no upper bound.")
    missing: Literal["drop", "keep", "error"] = Field(
        default="drop", description="What happens to a row whose label is null or absent."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.min) || has(self.max)",
            check=lambda self: self.min is not None or self.max is not None,
            message="set min, max or both",
        ),
        Rule(
            cel="!has(self.min) || !has(self.max) || self.min <= self.max",
            check=lambda self: self.min is None or self.max is None or self.min <= self.max,
            message="min must not be above max",
        ),
    )


class FilterOutput(Model):
    """The shape of the published dataset (JSON Lines shards)."""

    rows_per_shard: int = Field(default=10_000, ge=1, le=100_000_000, description="Rows of one shard file.")


class FilterSpec(Model):
    """Keep, drop and rename rows of a dataset; publish what is left as a dataset artifact."""

    source: Input = Field(
        description="A dataset artifact, or a file or folder of .jsonl and .parquet files (a folder is read whole)."
    )
    by_label: ByLabel = Field(description="Keep rows by a numeric label, such as a pass rate.")
    columns: dict[Column, Column] = Field(
        default={}, max_length=64, description="Renames: new column name to the name in the source."
    )
    output: FilterOutput = Field(default=FilterOutput(), description="The shape of the published dataset.")
    parallelism: int = Field(default=1, ge=1, le=256, description="Worker pods that share the source.")

    needs: ClassVar[Mapping[str, ArtifactType]] = {"source": "dataset"}
    """The type that an artifact must have to be this input; an input that is not here takes any."""

    def inputs(self) -> dict[str, Input]:
        """What this job reads, by the field's path; the names of ``RunFacts.inputs``."""
        return {"source": self.source}
