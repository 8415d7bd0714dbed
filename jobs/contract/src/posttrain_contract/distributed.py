"""Training over processes and nodes."""

import json
from typing import Any, ClassVar, Literal

from pydantic import Field

from posttrain_contract.base import Model, Rule

Strategy = Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"]
"""What is split among the processes: ddp nothing, zero1 the optimizer's state, zero2 gradients too, the others all."""


class Distributed(Model):
    """Training over processes and nodes."""

    nodes: int = Field(default=1, ge=1, le=1024, description="Pods, one a node.")
    processes_per_node: int = Field(
        default=1, ge=1, le=64, description="Training processes a pod; with GPUs one for each GPU."
    )
    strategy: Strategy = Field(
        default="ddp",
        description="What is split among the processes: ddp nothing, zero1 the optimizer's state, zero2 gradients "
        "too, zero3 (DeepSpeed) and fsdp2 (PyTorch) weights too.",
    )
    override: str | None = Field(
        default=None,
        min_length=2,
        max_length=16_384,
        pattern=r"^\s*[{][\s\S]*[}]\s*$",
        description="For experts: a JSON object that is merged into the generated DeepSpeed configuration (zero1 to "
        "zero3) or fsdp_config (fsdp2); absent: none.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.override) || (has(self.strategy) && self.strategy != 'ddp')",
            check=lambda self: self.override is None or self.strategy != "ddp",
            message="override belongs to strategy: zero1, zero2, zero3 or fsdp2; ddp has no configuration",
        ),
        Rule(
            cel="!has(self.strategy) || self.strategy == 'ddp' || (has(self.nodes) ? self.nodes : 1)"
            " * (has(self.processesPerNode) ? self.processesPerNode : 1) > 1",
            check=lambda self: self.strategy == "ddp" or self.nodes * self.processes_per_node > 1,
            message="strategy zero1, zero2, zero3 and fsdp2 split over processes: nodes x processesPerNode must be at "
            "least 2",
        ),
    )

    def override_values(self) -> dict[str, Any]:
        """The override as values; empty without one. Raises ``ValueError`` where it is no JSON object."""
        values = json.loads(self.override or "{}")
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")  # noqa: TRY004 - the error of json.loads is one too
        return values
