"""Publishing a folder as a repository of a Hub, and proving that what was published is what is in the folder."""

import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.upload import Repository
from posttrain_runtime.errors import StageError
from posttrain_runtime.files import git_hash, sha256
from posttrain_runtime.hub_errors import TOKEN, explained

log = logging.getLogger(__name__)

_IGNORED = ("**/.cache/**", "*.tmp", "*.part", "*.incomplete", "*.lock")
_DEFAULT_BRANCH = "main"

RepositoryType = Literal["model", "dataset"]


@dataclass(frozen=True)
class Publication:
    """A folder and the repository that it becomes."""

    type: RepositoryType
    repository: Repository
    folder: Path

    @property
    def files(self) -> list[Path]:
        """Every file, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Pushed:
    """What a push changed."""

    files: int
    bytes: int
    commits: int


class Hub:
    """A Hub, with the token of this process's environment."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        # Without a token of its own the client would take one from the home folder of whoever runs this.
        self._api = HfApi(endpoint=endpoint, token=os.environ.get(TOKEN) or False)

    def push(self, publication: Publication) -> Pushed:
        """Makes the branch of the repository hold exactly these files; content that is there already is not sent.

        Raises ``StageError``: REFUSED for what the Hub will not accept, UNREACHABLE for what may work later.
        """
        target = publication.repository
        with self._explained(target.id):
            self._prepare(publication)
            before = self._files(publication, target.branch)
            self._api.upload_folder(
                repo_id=target.id,
                repo_type=publication.type,
                folder_path=publication.folder,
                revision=target.branch,
                commit_message="Publish with posttrain",
                ignore_patterns=list(_IGNORED),
                delete_patterns=["data/*.parquet"] if publication.type == "dataset" else None,
            )
            after = self._files(publication, target.branch)
        return self._verify(publication, before, after)

    def _prepare(self, publication: Publication) -> None:
        target, kind = publication.repository, publication.type
        self._api.create_repo(target.id, repo_type=kind, private=target.private, exist_ok=True)
        private = self._api.repo_info(target.id, repo_type=kind).private
        if private is not target.private:
            words = {True: "private", False: "public"}
            raise StageError(
                ExitCode.REFUSED,
                "VisibilityMismatch",
                f"spec.repository.private is {str(target.private).lower()}, but {target.id} exists and is "
                f"{words[not target.private]}; change one of the two",
            )
        if target.branch != _DEFAULT_BRANCH:
            self._api.create_branch(target.id, branch=target.branch, repo_type=kind, exist_ok=True)

    def _files(self, publication: Publication, branch: str) -> dict[str, str]:
        """The published files with their hashes."""
        tree = self._api.list_repo_tree(
            publication.repository.id, repo_type=publication.type, revision=branch, recursive=True
        )
        files = (item for item in tree if isinstance(item, RepoFile))
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def _verify(self, publication: Publication, before: dict[str, str], after: dict[str, str]) -> Pushed:
        changed = []
        for path in publication.files:
            name = path.relative_to(publication.folder).as_posix()
            if after.get(name) not in (sha256(path), git_hash(path)):
                raise StageError(
                    ExitCode.UNREACHABLE,
                    "PublishedFilesDiffer",
                    f"{publication.repository.id}: {name} on the Hub is not the file that was sent; run again",
                )
            if before.get(name) != after[name]:
                changed.append(path)
        size = sum(path.stat().st_size for path in changed)
        log.info("%s: %d files (%d bytes) changed", publication.repository.id, len(changed), size)
        return Pushed(files=len(changed), bytes=size, commits=int(before != after))

    def _explained(self, repository: str) -> AbstractContextManager[None]:
        token = "is set" if os.environ.get(TOKEN) else "is not set"
        remedy = f"{TOKEN} {token}: give a token that may write to {repository.partition('/')[0]}"
        return explained(repository, endpoint=self._endpoint, remedy=remedy)
