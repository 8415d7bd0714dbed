"""A client of a Kubernetes API server, for whatever a test does to objects and wants to know of them."""

import itertools
import json
import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
from posttrain_operator.cluster import Json, Ref

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
SECONDS = 60.0


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, answer: Json) -> None:
        super().__init__(f"{status} {answer.get('reason', '')}: {answer.get('message', '')}")
        self.status = status
        """HTTP status."""
        self.reason = str(answer.get("reason", ""))
        """Kubernetes' word for it: NotFound, AlreadyExists, Conflict, Invalid, Forbidden, ..."""
        self.message = str(answer.get("message", ""))


class Api:
    """Requests as one user, for objects of any kind; threads may share it. Refusals raise ``ApiError``.

    A field that the API server does not know is refused, too.
    """

    def __init__(self, url: str, *, ca_file: Path, token: str) -> None:
        self._client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(ca_file)),
            timeout=SECONDS,
            trust_env=False,  # a proxy has no business on loopback
        )
        self._resources: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def ready(self) -> bool:
        """Whether the API server answers and says that it is ready."""
        try:
            return self._client.get("/readyz").is_success
        except httpx2.HTTPError:
            return False

    def create(self, obj: Json, *, namespace: str = "", dry_run: bool = False) -> Json:
        """Creates an object, in ``namespace`` or where its metadata says, and returns it as stored."""
        where = namespace or obj["metadata"].get("namespace", "")
        path = self._path(obj["apiVersion"], obj["kind"], where)
        return self.request("POST", path, body=obj, params={"dryRun": "All"} if dry_run else {})

    def get(self, ref: Ref) -> Json:
        return self.request("GET", self._of(ref))

    def find(self, ref: Ref) -> Json | None:
        """The object, or None when there is none."""
        try:
            return self.get(ref)
        except ApiError as error:
            if error.status == httpx2.codes.NOT_FOUND:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "") -> list[Json]:
        """The objects of a kind; namespace "" means all. They carry apiVersion and kind, as single objects do."""
        answer = self.request("GET", self._path(api_version, kind, namespace), params={"labelSelector": labels})
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]

    def patch(self, ref: Ref, changes: Json, *, subresource: str = "") -> Json:
        """Merges changes into an object; None removes a field, and a resourceVersion among them is a precondition."""
        return self.request("PATCH", self._of(ref, subresource), body=changes, content_type=MERGE_PATCH)

    def patch_status(self, ref: Ref, status: Json) -> Json:
        """Merges fields into an object's status, as a controller or the kubelet does."""
        return self.patch(ref, {"status": status}, subresource="status")

    def replace(self, obj: Json, *, subresource: str = "") -> Json:
        """Writes a whole object, which conflicts when it has changed since it was read."""
        return self.request("PUT", self._of(Ref.of(_with_namespace(obj)), subresource), body=obj)

    def apply(self, obj: Json, *, manager: str = "test") -> Json:
        """Server-side applies an object, taking over what others manage."""
        return self.apply_text(Ref.of(_with_namespace(obj)), json.dumps(obj), manager=manager)

    def apply_text(self, ref: Ref, text: str, *, manager: str = "test") -> Json:
        """Server-side applies the YAML or JSON text of an object."""
        params = {"fieldManager": manager, "force": "true"}
        return self.request("PATCH", self._of(ref), body=text, params=params, content_type=APPLY_PATCH)

    def delete(self, ref: Ref, **options: Any) -> None:
        """Deletes an object with DeleteOptions, such as gracePeriodSeconds=0; its dependents follow."""
        self.request("DELETE", self._of(ref), body={"propagationPolicy": "Background", **options})

    def watch(
        self, api_version: str, kind: str, namespace: str = "", *, resource_version: str = "", seconds: float = SECONDS
    ) -> Iterator["Change"]:
        """Changes of a kind's objects from a resourceVersion on ("": all that is there first); ends after ``seconds``.

        Whoever waits for one change stops iterating; 410 Gone raises ``ApiError``.
        """
        path = self._path(api_version, kind, namespace)
        params = {"watch": "1", "resourceVersion": resource_version, "timeoutSeconds": str(max(1, round(seconds)))}
        with self._client.stream("GET", path, params=params) as answer:
            if answer.is_error:
                raise refusal(answer.status_code, answer.read())
            for line in answer.iter_lines():
                change = json.loads(line)
                if change["type"] == "ERROR":
                    raise ApiError(change["object"].get("code", 0), change["object"])
                yield Change(change["type"], change["object"])

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | str | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """Any request; returns the decoded answer."""
        strict = {} if method in ("GET", "DELETE") else {"fieldValidation": "Strict"}
        answer = self._client.request(
            method,
            path,
            params={**strict, **(params or {})},
            content=json.dumps(body) if isinstance(body, dict) else body,
            headers={"Content-Type": content_type},
        )
        if answer.is_error:
            raise refusal(answer.status_code, answer.content)
        return dict(answer.json())

    def _of(self, ref: Ref, subresource: str = "") -> str:
        path = f"{self._path(ref.api_version, ref.kind, ref.namespace)}/{ref.name}"
        return f"{path}/{subresource}" if subresource else path

    def _path(self, api_version: str, kind: str, namespace: str) -> str:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        if (api_version, kind) not in self._resources:
            for resource in self.request("GET", root)["resources"]:
                if "/" not in resource["name"]:
                    self._resources[api_version, resource["kind"]] = resource["name"]
        plural = self._resources[api_version, kind]
        return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


@dataclass(frozen=True)
class Change:
    """One event of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED."""
    object: Json


@dataclass(frozen=True)
class Kubectl:
    """The command line client, as the user of a kubeconfig."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str = "", seconds: float = SECONDS) -> str:
        """Its standard output; AssertionError with what it said when it fails."""
        done = self.run(*arguments, stdin=stdin, seconds=seconds)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def run(self, *arguments: str, stdin: str = "", seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, whatever that is."""
        command = self.command(*arguments)
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)

    def command(self, *arguments: str) -> list[str]:
        """Its command line, for a process that a test watches."""
        # Another control plane may have had the same port: its discovery must not be remembered.
        cache = self.kubeconfig.parent / "kubectl-cache"
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={cache}", *arguments]


def table(text: str) -> list[dict[str, str]]:
    """The rows that kubectl prints, by the heads of their columns."""
    head, *rows = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    cuts = [slice(*ends) for ends in itertools.pairwise([*starts, None])]
    return [{head[cut].strip(): row[cut].strip() for cut in cuts} for row in rows]


def _with_namespace(obj: Json) -> Json:
    return {**obj, "metadata": {"namespace": "", **obj["metadata"]}}


def refusal(status: int, body: bytes) -> ApiError:
    """What an answer that is no success says."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {"message": body.decode(errors="replace")}
    return ApiError(status, answer)
