"""The artifacts that are published, as the stage finds them in the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain_contract import layout
from posttrain_contract.artifact import Manifest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_contract.stage import UploadStage
from posttrain_contract.upload import TRAINING_DATA_INPUT
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import is_artifact, read_manifest
from pydantic import ValidationError


@dataclass(frozen=True)
class Artifact:
    """A published artifact and what is known of it."""

    field: str
    """The field of the specification that names it, for messages."""
    folder: Path
    uri: str
    manifest: Manifest
    metrics: Mapping[str, float]
    """The final figures of the run that made it."""


def find_artifact(context: StageContext[Any], name: str) -> Artifact:
    """The artifact that an input names. Raises ``StageError`` (DATA) when the input is none."""
    field, source = f"spec.{name}", context.input(name)
    # A claim may be mounted through a link; the manifest lies beside the folder itself.
    folder = context.input_path(name).resolve()
    manifest = read_manifest(folder.parent) if is_artifact(folder) else None
    if manifest is None:
        raise StageError(
            ExitCode.DATA,
            "NoArtifact",
            f"{field}: {source.uri} is no artifact (no {layout.MANIFEST} lies beside it); "
            "name a finished job with from: KIND/NAME, or the artifact folder in its run folder",
        )
    return Artifact(field, folder, source.uri, manifest, _metrics(folder.parent))


def require_type(artifact: Artifact, *types: str) -> None:
    """Raises ``StageError`` (DATA) when an artifact is of none of these types."""
    if artifact.manifest.type not in types:
        raise StageError(
            ExitCode.DATA,
            "WrongArtifactType",
            f"{artifact.field}: {artifact.uri} is a {artifact.manifest.type}, not a {' or '.join(types)}",
        )


def find_artifacts(context: StageContext[UploadStage]) -> tuple[Artifact, Artifact | None]:
    """The artifact to publish, and with a model its training data when they are asked for."""
    source = find_artifact(context, "source")
    require_type(source, "model", "dataset")
    if context.config.spec.training_data is None:
        return source, None
    if source.manifest.type != "model":
        raise StageError(
            ExitCode.DATA,
            "WrongArtifactType",
            f"spec.trainingData: spec.source ({source.uri}) is a dataset, and only a model has training data; "
            "remove trainingData",
        )
    data = find_artifact(context, TRAINING_DATA_INPUT)
    require_type(data, "dataset")
    return source, data


def _metrics(run_folder: Path) -> Mapping[str, float]:
    try:
        return StageResult.model_validate_json((run_folder / layout.RESULT).read_bytes()).metrics
    except (OSError, ValidationError):
        return {}
