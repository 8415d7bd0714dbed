"""The one file that a stage program reads: what to do, and the facts of this run."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter

from posttrain_contract.base import Model
from posttrain_contract.filter import FilterSpec
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.rl import RLSpec
from posttrain_contract.upload import UploadSpec

SCHEMA_VERSION: Final = 1


class ResolvedInput(Model):
    """An input as the operator resolved it for this attempt."""

    uri: str = Field(description="Where the bytes are: pvc://, hf:// or file://.")
    path: str = Field(
        description="The same, as a path below the mount root; of hf:// the folder that holds what was fetched."
    )
    digest: str | None = Field(default=None, description="The manifest digest, when the input is an artifact.")


class RunFacts(Model):
    """What the user cannot know: who runs this, where it reads and where it writes."""

    kind: str
    namespace: str
    name: str
    attempt: int = Field(ge=1)
    folder: str = Field(description="The run folder as a path below the mount root.")
    uri: str = Field(description="The run folder as a URI, for status and lineage.")
    inputs: dict[str, ResolvedInput] = Field(default={}, description="Inputs by name, such as model or dataset.")
    gpus: int = Field(default=0, ge=0, description="GPUs of each pod; 0 means CPU.")
    hub: str | None = Field(
        default=None, description="URL of the Hub that hf:// inputs are on; absent: the client library's own."
    )

    @property
    def id(self) -> str:
        """NAMESPACE/KIND/NAME: the run's name in logs."""
        return f"{self.namespace}/{self.kind}/{self.name}"


class _StageConfig(Model):
    schema_version: Literal[1] = SCHEMA_VERSION
    run: RunFacts


class FilterStage(_StageConfig):
    """Configuration of ``posttrain_filter``."""

    stage: Literal["filter"] = "filter"
    spec: FilterSpec


class FineTuneStage(_StageConfig):
    """Configuration of ``posttrain_finetune``."""

    stage: Literal["finetune"] = "finetune"
    spec: FineTuneSpec


class RLStage(_StageConfig):
    """Configuration of ``posttrain_rl``, the trainer of an RLJob."""

    stage: Literal["rl"] = "rl"
    spec: RLSpec
    servers: tuple[str, ...] = Field(min_length=1, description="Host names or addresses of the rollout servers.")


class ServeStage(_StageConfig):
    """Configuration of ``posttrain_serve``: one vLLM server for this run's trainer."""

    stage: Literal["serve"] = "serve"
    tensor_parallel: int = Field(ge=1)
    max_model_length: int = Field(ge=1, description="Tokens of prompt and completion.")
    max_sequences: int = Field(ge=1)
    cache_memory_mi: int = Field(ge=1, description="Key-value cache on CPU, in MiB.")
    precision: Literal["fp32", "bf16"]
    seed: int


class UploadStage(_StageConfig):
    """Configuration of ``posttrain_upload``."""

    stage: Literal["upload"] = "upload"
    spec: UploadSpec
    hub_endpoint: str | None = Field(
        default=None, description="URL of the Hub; absent: only the folder in the Hub's layout is made."
    )


StageConfig = Annotated[FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage, Field(discriminator="stage")]
_adapter: TypeAdapter[FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage] = TypeAdapter(StageConfig)


def load(path: Path) -> FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage:
    """Reads a stage configuration.

    Raises ``OSError`` when the file cannot be read and ``pydantic.ValidationError`` when it is not a configuration of
    this schema version.
    """
    return _adapter.validate_json(path.read_bytes(), by_alias=True, by_name=False)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def config_digest(config: FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage) -> str:
    """SHA-256 over all that decides the artifact: what to do, for whom, from which inputs.

    Attempt, addresses, GPUs and the run folder may differ between the attempts of one object. What has its default is
    left out: a field that a later release adds changes no digest, so jobs go on from checkpoints of before an upgrade.
    """
    document = config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for fact in ("attempt", "gpus", "folder", "uri", "hub"):
        document["run"].pop(fact, None)
    document.pop("servers", None)
    document |= {"stage": config.stage, "schemaVersion": config.schema_version}
    return hashlib.sha256(canonical(document).encode()).hexdigest()
