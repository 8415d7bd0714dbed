"""The repository's README.md: metadata that the Hub reads, and where the content came from."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from posttrain_contract.upload import Card

from posttrain_upload.artifacts import Artifact
from posttrain_upload.tables import Dataset

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)


def model_card(*, repository: str, card: Card, artifact: Artifact, training_data: str | None) -> str:
    """The card of a model; ``training_data`` is the repository id of its dataset."""
    front = _common(card) | {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": [training_data] if training_data else None,
    }
    count = artifact.manifest.parameters
    summary = "A language model" + (f" with {count:,} parameters." if count else ".")
    return _document(front, card.body or f"# {repository}\n\n{summary}", artifact)


def dataset_card(*, repository: str, card: Card, artifact: Artifact, dataset: Dataset, model: str | None) -> str:
    """The card of a dataset; ``model`` is the repository id of the model that was trained on it."""
    front = _common(card) | {
        "size_categories": [size_category(dataset.rows)],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]},
        ],
    }
    summary = f"{dataset.rows:,} rows with the columns {', '.join(dataset.columns)}."
    used = f"\n\n[{model}](../../{model}) was trained on it." if model else ""
    return _document(front, card.body or f"# {repository}\n\n{summary}{used}", artifact)


def size_category(rows: int) -> str:
    """The Hub's word for so many rows."""
    return next((name for bound, name in _SIZES if rows < bound), "n>1B")


def _common(card: Card) -> dict[str, Any]:
    return {"license": card.license, "language": list(card.language) or None}


def _document(front: Mapping[str, Any], body: str, artifact: Artifact) -> str:
    known = {name: value for name, value in front.items() if value is not None}
    head = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    return "\n".join([f"---\n{head}---", "", body.strip(), "", *_lineage(artifact), *_figures(artifact.metrics)])


def _lineage(artifact: Artifact) -> Sequence[str]:
    rows = [("this", artifact.uri, artifact.manifest.digest)]
    rows += [(name, entry.uri, entry.digest or "") for name, entry in sorted(artifact.manifest.inputs.items())]
    lines = [f"| {name} | `{uri}` | {f'`{digest}`' if digest else ''} |" for name, uri, digest in rows]
    return ["## Made from", "", "| what | where | SHA-256 of the artifact |", "| --- | --- | --- |", *lines, ""]


def _figures(metrics: Mapping[str, float]) -> Sequence[str]:
    if not metrics:
        return []
    lines = [f"| {name} | {value:g} |" for name, value in metrics.items()]
    return ["## Figures of the run that made it", "", "| figure | value |", "| --- | --- |", *lines, ""]
