"""What can go wrong between a client and an API server: requests as a test sees them, faults, and rules that choose."""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from support.watch_faults import Shape

Json = dict[str, Any]

_PATH: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?"
)
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PASSING: Final = re.compile(r"Time$|Timestamp$|^(updatedAt|resourceVersion|managedFields)$")
"""Fields that differ whenever the same thing is said again."""


@dataclass(frozen=True)
class Request:
    """One request to the API server."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    agent: str = ""
    body: Json | list[Any] | None = None

    @property
    def resource(self) -> str:
        """The plural with its subresource, such as ``finetunejobs/status``; empty outside the resources."""
        found = self._parts
        return "/".join(part for part in (found.get("resource"), found.get("sub")) if part)

    @property
    def namespace(self) -> str:
        return self._parts.get("namespace") or ""

    @property
    def name(self) -> str:
        """The object's name, also of one that is being created."""
        body = self.body if isinstance(self.body, dict) and self.method == "POST" else {}
        return self._parts.get("name") or body.get("metadata", {}).get("name", "")

    @property
    def verb(self) -> str:
        """As in RBAC: get, list, watch, create, update, patch, delete or deletecollection."""
        named = bool(self._parts.get("name"))
        if self.method == "DELETE" and not named:
            return "deletecollection"
        if self.method in _VERBS:
            return _VERBS[self.method]
        if self.query.get("watch") in ("1", "true"):
            return "watch"
        return "get" if named or not self._parts else "list"

    @property
    def mutating(self) -> bool:
        return self.method in _VERBS

    @property
    def digest(self) -> str:
        """Of what is said: equal when the same is said again later, so without times and versions."""
        said = json.dumps(_lasting(self.body), sort_keys=True)
        return hashlib.sha256(f"{self.method} {self.path} {said}".encode()).hexdigest()[:12]

    @property
    def _parts(self) -> dict[str, str | None]:
        found = _PATH.fullmatch(self.path)
        return found.groupdict() if found else {}

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}/{self.name}" if self.name else f"{self.verb} {self.resource or self.path}"


def _lasting(body: object) -> object:
    if isinstance(body, dict):
        return {key: _lasting(value) for key, value in body.items() if not _PASSING.search(key)}
    if isinstance(body, list):
        return [_lasting(value) for value in body if not _is_passing_operation(value)]
    return body


def _is_passing_operation(value: object) -> bool:
    """Whether it is a step of a JSON patch about such a field."""
    return (
        isinstance(value, dict) and "op" in value and bool(_PASSING.search(str(value.get("path")).rpartition("/")[2]))
    )


@dataclass(frozen=True)
class Answer:
    """The request is not forwarded; the client gets this status, and ``retry_after`` seconds as a header."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True)
class Delay:
    """The request is forwarded after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """The connection is reset: before the request is forwarded, or when it was answered and the client does not know.

    ``hook`` is called in between, with everything else of the proxy standing still.
    """

    answered: bool = False
    hook: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Silence:
    """No answer for so long, then a reset; the request is forwarded or not."""

    seconds: float
    forwarded: bool = False


@dataclass(frozen=True)
class Shaped:
    """A watch whose events pass through ``shape``."""

    shape: Shape


Turn = Callable[[int, bytes], tuple[int, bytes]]


def unturned(status: int, data: bytes) -> tuple[int, bytes]:
    return status, data


@dataclass(frozen=True)
class Instead:
    """Another path is asked, and the client gets what ``turn`` makes of that status and body."""

    path: str
    turn: Turn = unturned


Fault = Answer | Delay | Reset | Silence | Shaped | Instead
Rule = Callable[[Request], Fault | None]
"""Says what happens to a request; None: nothing of its doing. The first rule of a proxy that says something counts."""
Which = Callable[[Request], bool]


def anything(_: Request) -> bool:
    return True


def children_and_status(request: Request) -> bool:
    """The writes that make a job's life; Leases and Events come by the clock and repeat."""
    return request.mutating and request.resource not in ("leases", "events")


@dataclass
class Nth:
    """One fault, for the requests of these numbers, from 1, among those that match."""

    numbers: Collection[int]
    fault: Fault
    which: Which = children_and_status
    seen: int = 0

    def __call__(self, request: Request) -> Fault | None:
        if not self.which(request):
            return None
        self.seen += 1
        return self.fault if self.seen in self.numbers else None

    @property
    def done(self) -> bool:
        """Whether it has happened as often as it should."""
        return self.seen >= max(self.numbers)


@dataclass
class Sometimes:
    """One of some faults at a rate.

    What befalls the n-th request that says the same depends on the seed alone, in whatever order they come.
    """

    rate: float
    faults: Sequence[Fault]
    seed: int = 0
    which: Which = anything
    _seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: Request) -> Fault | None:
        if not self.which(request):
            return None
        key = f"{request.verb} {request.digest}"
        self._seen[key] += 1
        chance = random.Random(f"{self.seed} {key} {self._seen[key]}")
        return chance.choice(self.faults) if chance.random() < self.rate else None


@dataclass
class DenyTwice:
    """Every distinct change is denied twice before it is let through."""

    answer: Answer
    which: Which = children_and_status
    _seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: Request) -> Fault | None:
        if not self.which(request):
            return None
        self._seen[request.digest] += 1
        return self.answer if self._seen[request.digest] <= 2 else None


@dataclass(frozen=True)
class Watches:
    """Shapes the watches that match."""

    shape: Shape
    which: Which = anything

    def __call__(self, request: Request) -> Fault | None:
        return Shaped(self.shape) if request.verb == "watch" and self.which(request) else None
