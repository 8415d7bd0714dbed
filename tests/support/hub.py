"""A stand-in for the Hugging Face Hub that the unmodified client can create, fill, list and read repositories on.

It speaks the plain LFS path: run clients with ``HF_HUB_DISABLE_XET=1``. Content lives in memory.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_REPOSITORY = r"(?P<type>model|dataset)s/(?P<id>[^/]+/[^/?]+)"
_LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".model")
_LFS_BYTES = 10 << 20


@dataclass(frozen=True)
class File:
    """One file of a revision."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        """What LFS calls it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """What git calls it."""
        data = self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        """What downloads are told."""
        return self.sha256 if self.lfs else self.oid


@dataclass
class Repository:
    """A repository: its branches point at commits, and commits hold every file."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch or commit name."""
        name = self.branches.get(revision, revision)
        return name if name in self.commits else None

    def files(self, revision: str = "main") -> dict[str, File]:
        """The files of a revision."""
        return self.commits[self.branches.get(revision, revision)]

    def commit(self, branch: str, files: dict[str, File]) -> str:
        """Moves a branch to a new commit."""
        text = json.dumps([self.branches[branch], sorted((path, f.sha256) for path, f in files.items())])
        name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name


@dataclass
class Fault:
    """Calls that fail: those whose 'METHOD PATH' matches, from the ``first`` on, ``times`` in number."""

    pattern: str
    status: int
    """The answer; 0 does the work and drops the connection without an answer, or after ``cut`` bytes of it."""
    first: int = 1
    times: int = 1
    cut: int = 0
    seen: int = 0

    def strikes(self, call: str) -> bool:
        """Whether this call fails; counts it."""
        if not re.search(self.pattern, call):
            return False
        self.seen += 1
        return self.first <= self.seen < self.first + self.times


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int = 200
    body: Any = field(default_factory=dict)
    """Bytes as they are, anything else as JSON."""
    headers: dict[str, str] = field(default_factory=dict)


def _missing(code: str) -> Answer:
    return Answer(404, {"error": code}, {"X-Error-Code": code})


@dataclass
class StandInHub:
    """The state of the Hub and its switches."""

    token: str | None = None
    """Every call must carry it, when set."""
    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by SHA-256."""
    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """'METHOD PATH' of every call."""
    held: threading.Event | None = None
    """Files are sent when it is set."""
    gated: dict[str, str] = field(default_factory=dict)
    """Repositories whose files only this token may read; their names and sizes everybody sees."""
    cards: list[str] = field(default_factory=list)
    """Every README.md that the client asked to validate."""

    def count(self, pattern: str) -> int:
        """How many calls matched."""
        return sum(bool(re.search(pattern, call)) for call in self.calls)

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Routes a call."""
        for pattern, handler in self._routes():
            if match := re.fullmatch(pattern, f"{method} {path}"):
                names = {name: unquote(value) for name, value in match.groupdict(default="").items()}
                return handler(body, **names)
        return Answer(404, {"error": "no such route"})

    def _routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        return [
            ("POST /api/repos/create", self._create),
            ("POST /api/validate-yaml", self._validate),
            (rf"POST /api/{_REPOSITORY}/branch/(?P<branch>[^/]+)", self._branch),
            (rf"POST /api/{_REPOSITORY}/preupload/(?P<revision>[^/]+)", self._preupload),
            (rf"POST /api/{_REPOSITORY}/commit/(?P<revision>[^/]+)", self._commit),
            (r"POST /(datasets/)?[^/]+/[^/]+\.git/info/lfs/objects/batch", self._batch),
            ("PUT /lfs/(?P<oid>[0-9a-f]{64})", self._put),
            ("POST /lfs/verify", self._verify),
            (rf"GET /api/{_REPOSITORY}(/revision/(?P<revision>[^/?]+))?(?P<blobs>\?blobs)?", self._info),
            (rf"GET /api/{_REPOSITORY}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", self._tree),
            (
                r"(GET|HEAD) /(?P<type>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
                self._read,
            ),
        ]

    def _create(self, body: bytes) -> Answer:
        request = json.loads(body)
        kind, name = request.get("type", "model"), f"{request['organization']}/{request['name']}"
        url = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.repositories:
            return Answer(409, {"error": "You already created this repo", "url": url})
        self.repositories[kind, name] = Repository(private=request.get("visibility") == "private")
        return Answer(body={"url": url, "name": name})

    def _validate(self, body: bytes) -> Answer:
        self.cards.append(json.loads(body)["content"])
        return Answer(body={"warnings": [], "errors": []})

    def _branch(self, _: bytes, type: str, id: str, branch: str) -> Answer:  # noqa: A002 - names of the route
        repository = self.repositories[type, id]
        if branch in repository.branches:
            return Answer(409, {"error": "Reference already exists"})
        repository.branches[branch] = repository.branches["main"]
        return Answer(201)

    def _preupload(self, body: bytes, type: str, id: str, revision: str) -> Answer:  # noqa: A002
        if (repository := self.repositories.get((type, id))) is None:
            return _missing("RepoNotFound")
        if repository.resolve(revision) is None:
            return _missing("RevisionNotFound")
        present = repository.files(revision)
        files = []
        for item in json.loads(body)["files"]:
            path = item["path"]
            lfs = path.endswith(_LFS_SUFFIXES) or item["size"] > _LFS_BYTES
            entry = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            files.append(entry | ({"oid": present[path].etag} if path in present else {}))
        return Answer(body={"files": files})

    def _batch(self, body: bytes) -> Answer:
        objects = []
        for item in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.url}/lfs/{item['oid']}"},
                "verify": {"href": f"{self.url}/lfs/verify"},
            }
            objects.append(item | ({} if item["oid"] in self.objects else {"actions": actions}))
        return Answer(body={"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, oid: str) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return Answer(400, {"error": "the content has another hash"})
        self.objects[oid] = body
        return Answer(headers={"ETag": f'"{oid}"'})

    def _verify(self, body: bytes) -> Answer:
        request = json.loads(body)
        stored = self.objects.get(request["oid"])
        return Answer(200 if stored is not None and len(stored) == request["size"] else 404)

    def _commit(self, body: bytes, type: str, id: str, revision: str) -> Answer:  # noqa: A002
        repository = self.repositories[type, id]
        files = dict(repository.files(revision))
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile":
                    if value["oid"] not in self.objects:
                        return Answer(400, {"error": f"{value['path']} was not uploaded"})
                    files[value["path"]] = File(self.objects[value["oid"]], lfs=True)
                case "deletedFile":
                    del files[value["path"]]
        name = repository.commit(revision, files)
        return Answer(body={"commitUrl": f"{self.url}/{id}/commit/{name}", "commitOid": name, "hookOutput": ""})

    def _info(self, _: bytes, type: str, id: str, revision: str, blobs: str) -> Answer:  # noqa: A002
        if (repository := self.repositories.get((type, id))) is None:
            return _missing("RepoNotFound")
        if (commit := repository.resolve(revision or "main")) is None:
            return _missing("RevisionNotFound")
        files = sorted(repository.commits[commit].items())
        siblings = [{"rfilename": path, **(_blob(file) if blobs else {})} for path, file in files]
        facts = {
            "id": id,
            "sha": commit,
            "private": repository.private,
            "siblings": siblings,
            "tags": [],
            "downloads": 0,
        }
        return Answer(body=facts)

    def _tree(self, _: bytes, type: str, id: str, revision: str, folder: str) -> Answer:  # noqa: A002
        if (repository := self.repositories.get((type, id))) is None:
            return _missing("RepoNotFound")
        if (commit := repository.resolve(revision)) is None:
            return _missing("RevisionNotFound")
        prefix = f"{folder}/" if folder else ""
        files = {path: file for path, file in sorted(repository.commits[commit].items()) if path.startswith(prefix)}
        if folder and not files:
            return _missing("EntryNotFound")
        return Answer(body=[_tree_entry(path, file) for path, file in files.items()])

    def _read(self, _: bytes, type: str, id: str, revision: str, path: str) -> Answer:  # noqa: A002
        if (repository := self.repositories.get(("dataset" if type else "model", id))) is None:
            return _missing("RepoNotFound")
        if (commit := repository.resolve(revision)) is None:
            return _missing("RevisionNotFound")
        if (file := repository.commits[commit].get(path)) is None:
            return _missing("EntryNotFound")
        return Answer(body=file.data, headers={"ETag": f'"{file.etag}"', "X-Repo-Commit": commit})


def _blob(file: File) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": file.sha256, "size": len(file.data), "pointerSize": 134}} if file.lfs else {}
    return {"size": len(file.data), "blobId": file.oid, **lfs}


def _tree_entry(path: str, file: File) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(file.data), "oid": file.oid}
    lfs = {"lfs": {"oid": file.sha256, "size": len(file.data), "pointerSize": 134}}
    return entry | (lfs if file.lfs else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def _serve(self) -> None:
        path, query = urlsplit(self.path).path, urlsplit(self.path).query
        call = f"{self.command} {path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.calls.append(call)
        fault = next((fault for fault in self.hub.faults if fault.strikes(call)), None)
        if fault is not None and fault.status:
            self._send(Answer(fault.status, {"error": "injected"}))
            return
        # Objects are fetched by signed links on the real Hub, so they need no token.
        authorized = self.hub.token is None or self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if not authorized and not path.startswith("/lfs/"):
            self._send(Answer(401, {"error": "Invalid username or password."}))
            return
        if (refused := self._gate(path)) is not None:
            self._send(refused)
            return
        if self.command == "GET" and "/resolve/" in path and self.hub.held is not None:
            self.hub.held.wait()
        answer = self.hub.answer(self.command, path + ("?blobs" if "blobs=true" in query else ""), body)
        if fault is not None:
            self.close_connection = True
            if fault.cut:
                self._send(answer, cut=fault.cut)
            self.connection.close()
            return
        self._send(answer)

    def _gate(self, path: str) -> Answer | None:
        keys = [key for name, key in self.hub.gated.items() if f"/{name}/resolve/" in path]
        if not keys or self.headers.get("Authorization") == f"Bearer {keys[0]}":
            return None
        status = 403 if self.headers.get("Authorization") else 401
        return Answer(status, {"error": "Access is restricted."}, {"X-Error-Code": "GatedRepo"})

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - names of the standard library

    def _send(self, answer: Answer, *, cut: int | None = None) -> None:
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        part = first is not None and answer.status == HTTPStatus.OK and isinstance(answer.body, bytes)
        if first is not None and part:
            size, start = len(data), int(first[1])
            data = data[start:]
            answer.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.send_response(HTTPStatus.PARTIAL_CONTENT if part else answer.status)
        kind = "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])

    def log_message(self, *_: object) -> None:
        """Calls are kept in ``StandInHub.calls``."""


@contextmanager
def stand_in_hub(*, token: str | None = None) -> Iterator[StandInHub]:
    """A Hub on a free port of the loopback address."""
    hub = StandInHub(token=token)
    server = _server(hub, "127.0.0.1", 0)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server(hub: StandInHub, address: str, port: int) -> ThreadingHTTPServer:
    return ThreadingHTTPServer((address, port), type("Handler", (_Handler,), {"hub": hub}))


if __name__ == "__main__":  # in a pod: python hub.py URL TOKEN
    _server(StandInHub(url=sys.argv[1], token=sys.argv[2]), "", urlsplit(sys.argv[1]).port or 80).serve_forever()
