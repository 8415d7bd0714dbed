"""The repository's README.md: metadata that the Hub reads, and where the content came from.

A model brings a card of its own from its training. The repository has one card all the same: what the UploadJob says
wins, lineage and figures are those of the manifest and the result, and of the model's card the rest is kept.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from posttrain_contract.artifact import InputEntry
from posttrain_contract.upload import Card
from posttrain_runtime import cards

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
_KEPT = ("library_name", "pipeline_tag", "base_model", "tags")


def model_card(*, repository: str, card: Card, artifact: Artifact, training_data: str | None) -> str:
    """The card of a model; ``training_data`` is the repository id of its dataset."""
    own = _own_card(artifact)
    front = _common(card) | {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **_metadata(own),
        "datasets": [training_data] if training_data else None,
    }
    count = artifact.manifest.parameters
    what = "An adapter of a language model" if front["library_name"] == "peft" else "A language model"
    summary = what + (f" with {count:,} parameters." if count else ".")
    kept = [text for heading, text in cards.sections(own).items() if heading not in (cards.MADE_FROM, cards.FIGURES)]
    return _document(front, "\n\n".join([card.body or f"# {repository}\n\n{summary}", *kept]), artifact)


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
    this = InputEntry(uri=artifact.uri, digest=artifact.manifest.digest)
    lineage = cards.lineage({"this": this, **dict(sorted(artifact.manifest.inputs.items()))})
    return "\n".join([f"---\n{head}---", "", body.strip(), "", *lineage, *cards.figures(artifact.metrics)])


def _own_card(artifact: Artifact) -> str:
    """The card that the model has from its training; empty when it has none."""
    if all(entry.path != cards.README for entry in artifact.manifest.files):
        return ""
    return (artifact.folder / cards.README).read_text(encoding="utf-8", errors="replace")


def _metadata(text: str) -> dict[str, Any]:
    """What the head of a card says that the Hub reads and no UploadJob can say better."""
    _, mark, rest = text.partition("---\n") if text.startswith("---\n") else ("", "", "")
    try:
        found = yaml.safe_load(rest.partition("\n---\n")[0]) if mark else None
    except yaml.YAMLError:
        return {}
    return {name: found[name] for name in _KEPT if name in found} if isinstance(found, dict) else {}
