"""``python -m posttrain_runtime.hub_client``: the process that speaks with the Hub for ``posttrain_runtime.hub``.

A download cannot be stopped from within: the library for large files goes on whatever it is told. A process can be
ended. It reads a ``Request`` from standard input, goes with its parent, and answers one ``Answer`` line.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.hub import HubAddress

from posttrain_runtime.errors import StageError, classify
from posttrain_runtime.files import git_hash, sha256
from posttrain_runtime.hub import Answer, Request
from posttrain_runtime.hub_errors import explained
from posttrain_runtime.hub_files import choose

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
_PARENT_LOST: Final = 1


def main() -> int:
    """Answers one request."""
    request = Request.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = _Client(request).answer()
    except Exception as error:
        failure = classify(error)
        if failure.code is ExitCode.UNHANDLED:
            log.exception("the client of the Hub failed")
        answer = Answer(code=failure.code, reason=failure.reason, message=failure.message)
    sys.stdout.write(answer.model_dump_json(by_alias=True) + "\n")
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(_PARENT_LOST)


class _Client:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._address = HubAddress.parse(request.uri)
        # Without a token of its own the client would take one from the home folder of whoever runs this.
        self._api = HfApi(endpoint=request.endpoint, token=request.token or False)

    def answer(self) -> Answer:
        """Raises ``StageError`` naming the field."""
        revision, siblings = self._look()
        names = choose(self._address, list(siblings), field=self._request.field, weights=self._request.weights)
        chosen = [siblings[name] for name in names]
        if self._request.folder is not None:
            self._fetch(self._request.folder, names, revision)
            self._verify(self._request.folder, chosen)
        return Answer(revision=revision, files={file.rfilename: file.size or 0 for file in chosen})

    def _look(self) -> tuple[str, dict[str, Any]]:
        """The commit and its files by name."""
        with self._explained():
            info = self._api.repo_info(
                self._address.id, repo_type=self._address.type, revision=self._request.revision, files_metadata=True
            )
        if not isinstance(info.sha, str) or info.siblings is None:
            raise self._odd("told neither a commit nor files")
        return info.sha, {file.rfilename: file for file in info.siblings}

    def _fetch(self, folder: Path, names: Sequence[str], revision: str) -> None:
        def fetch(name: str) -> None:
            self._api.hf_hub_download(
                self._address.id, name, repo_type=self._address.type, revision=revision, local_dir=folder
            )

        with self._explained(), ThreadPoolExecutor(_AT_ONCE) as pool:
            fetched = [pool.submit(fetch, name) for name in names]
            try:
                for one in fetched:
                    one.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _verify(self, folder: Path, chosen: Sequence[Any]) -> None:
        """Compares every file with the hash that the Hub tells of it."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            checked = zip(chosen, pool.map(_checker(folder), chosen), strict=True)
            wrong = [file.rfilename for file, good in checked if not good]
        for name in wrong:
            (folder / name).unlink()
        if wrong:
            raise StageError(
                ExitCode.UNREACHABLE,
                "DownloadDamaged",
                f"{self._request.field}: {', '.join(wrong)} of {self._address.id} came with other content than the "
                "Hub tells of; it is fetched again",
            )

    def _explained(self) -> AbstractContextManager[None]:
        named = self._request.token is not None
        token = "is set: it must be one that may read it" if named else "is not set: name it there if it needs one"
        remedy = f"correct the name; run.secrets.huggingFace {token}"
        return explained(self._what, endpoint=self._api.endpoint, remedy=remedy)

    def _odd(self, what: str) -> StageError:
        message = f"{self._what}: the Hub at {self._api.endpoint} {what}; try again later"
        return StageError(ExitCode.UNREACHABLE, "HubUnreachable", message)

    @property
    def _what(self) -> str:
        return f"{self._request.field}: {self._address.id}"


def _checker(folder: Path) -> Callable[[Any], bool]:
    def good(file: Any) -> bool:
        path = folder / file.rfilename
        return bool(sha256(path) == file.lfs.sha256 if file.lfs else git_hash(path) == file.blob_id)

    return good


if __name__ == "__main__":
    sys.exit(main())
