"""The upload: builds the repositories as folders, sends them to a Hub when one is set, publishes the folders."""

import fnmatch
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.metrics import UPLOADED_PERCENT
from posttrain_contract.stage import UploadStage
from posttrain_contract.upload import Card, Repository
from posttrain_runtime.cards import README
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.store import Staged

from posttrain_upload.artifacts import Artifact, find_artifacts
from posttrain_upload.card import dataset_card, model_card
from posttrain_upload.hub import Hub, Publication
from posttrain_upload.tables import Converter

log = logging.getLogger(__name__)

_NOT_PUBLISHED = (
    README,
    "checkpoint-*",
    "global_step*",
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    ".*",
)
"""Parts of a model folder that serve training only, and the card that is part of ours."""


def upload(context: StageContext[UploadStage]) -> Finished:
    """Builds the repositories and sends them to the Hub when one is set.

    Raises ``StageError`` for input that cannot be published and for what the Hub answers.
    """
    spec = context.config.spec
    source, data = find_artifacts(context)
    builder = Builder(context)
    publications = []
    model = spec.repository.id if data else None
    if data is not None and spec.training_data is not None:
        card = Card(language=spec.card.language)
        publications.append(builder.dataset(data, spec.training_data.repository, card=card, model=model))
    if source.manifest.type == "model":
        training_data = spec.training_data.repository.id if spec.training_data else None
        publications.append(builder.model(source, spec.repository, training_data=training_data))
    else:
        publications.append(builder.dataset(source, spec.repository, card=spec.card, model=None))
    staged = Staged(context.staging, "repository", rows=source.manifest.rows, parameters=source.manifest.parameters)
    return Finished(_send(context, publications), staged)


class Builder:
    """Builds repositories as folders below the staging folder."""

    def __init__(self, context: StageContext[UploadStage]) -> None:
        self._context = context

    def model(self, artifact: Artifact, repository: Repository, *, training_data: str | None) -> Publication:
        """A model repository: the model's files and a card."""
        folder = self._context.staging / "models" / repository.id
        names = [entry.path for entry in artifact.manifest.files if _is_published(entry.path)]
        for done, name in enumerate(names):
            self._context.check_stop()
            self._context.progress.update("copying model", step=done, total=len(names))
            _link_or_copy(artifact.folder / name, folder / name)
        card = self._context.config.spec.card
        text = model_card(repository=repository.id, card=card, artifact=artifact, training_data=training_data)
        return self._finish("model", repository, folder, text)

    def dataset(self, artifact: Artifact, repository: Repository, *, card: Card, model: str | None) -> Publication:
        """A dataset repository: Parquet files and a card."""
        folder = self._context.staging / "datasets" / repository.id
        files = [artifact.folder / entry.path for entry in artifact.manifest.files]
        strange = [path.name for path in files if path.suffix != ".jsonl"]
        if strange:
            raise StageError(
                ExitCode.DATA,
                "InvalidFile",
                f"{artifact.field}: {artifact.uri} holds {', '.join(strange[:5])}; only .jsonl files can be converted",
            )
        dataset = Converter(files, artifact.field, self._tell).convert(folder / "data")
        text = dataset_card(repository=repository.id, card=card, artifact=artifact, dataset=dataset, model=model)
        return self._finish("dataset", repository, folder, text)

    def _tell(self, phase: str, done: int, size: int) -> None:
        self._context.check_stop()
        self._context.progress.update(f"{phase} rows", step=done, total=size)

    def _finish(self, kind: str, repository: Repository, folder: Path, card: str) -> Publication:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / README).write_text(card, encoding="utf-8")
        return Publication("dataset" if kind == "dataset" else "model", repository, folder)


def _send(context: StageContext[UploadStage], publications: Sequence[Publication]) -> dict[str, float]:
    """Sends every repository to the Hub. Returns the figures; none when no Hub is set."""
    endpoint = context.config.hub_endpoint
    if endpoint is None:
        return {}
    hub = Hub(endpoint)
    figures = {"filesUploaded": 0.0, "bytesUploaded": 0.0, "commits": 0.0}
    for done, publication in enumerate(publications):
        context.check_stop()
        percent = {UPLOADED_PERCENT: 100.0 * done / len(publications)}
        context.progress.update("uploading", step=done, total=len(publications), metrics=percent)
        pushed = hub.push(publication)
        figures["filesUploaded"] += pushed.files
        figures["bytesUploaded"] += pushed.bytes
        figures["commits"] += pushed.commits
    return {**figures, UPLOADED_PERCENT: 100.0}


def _is_published(name: str) -> bool:
    return not any(fnmatch.fnmatch(part, pattern) for part in name.split("/") for pattern in _NOT_PUBLISHED)


def _link_or_copy(source: Path, target: Path) -> None:
    """Artifacts never change, so a second name costs no space where the store is one file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
