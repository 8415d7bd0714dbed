"""The lists of an API server, in memory: pages of one moment, selectors, metadata alone, and moments that expire."""

import copy
from collections.abc import Callable

from aiohttp import web
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.rest import METADATA_LIST
from posttrain_operator.watched import APIS, Api

BeforePage = Callable[[int], None]
BeforeObject = Callable[[], object]


class PagedApi:
    """Answers GET of lists and of objects, see ``scripted_server.serving``."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[Ref, Json] = {}
        self.requests: list[str] = []
        """The path of each request, and what was asked of it."""
        self.refused: dict[str, int] = {}
        """Kinds that are answered with a status instead."""
        self.before_page: BeforePage = lambda _: None
        """Called with the number of the list's page, from 0, before it is answered."""
        self.before_object: BeforeObject = lambda: None
        """Called before an object is answered."""
        self._moments: dict[int, list[Json]] = {}

    def put(self, obj: Json) -> Json:
        """Creates or changes an object."""
        self.version += 1
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[Ref.of(stored)] = stored
        return stored

    def delete(self, obj: Json) -> None:
        self.version += 1
        del self.objects[Ref.of(obj)]

    def expire(self) -> None:
        """Forgets the moments of which pages were given out."""
        self._moments.clear()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = request.query.get("labelSelector", "")
        self.requests.append(f"{request.path} {asked}".rstrip())
        api, namespace, name = _parse(request.path)
        if api is None:
            return web.Response(status=404, text="404 page not found")
        if api.kind in self.refused:
            return _status(self.refused[api.kind])
        if name:
            self.before_object()
            found = self.objects.get(Ref(api.api_version, api.kind, namespace, name))
            return web.json_response(found) if found is not None else _status(404)
        return self._list(api, namespace, request)

    def _list(self, api: Api, namespace: str, request: web.BaseRequest) -> web.Response:
        moment, _, start = request.query.get("continue", f"{self.version}:0").partition(":")
        self.before_page(int(start) // int(request.query["limit"]))
        if "continue" not in request.query:
            moment = str(self.version)
            self._moments[self.version] = list(self.objects.values())
        elif int(moment) not in self._moments:
            return _status(410)
        wanted = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)
        found = [
            obj
            for obj in self._moments[int(moment)]
            if obj["kind"] == api.kind
            and namespace in ("", obj["metadata"]["namespace"])
            and wanted.items() <= obj["metadata"].get("labels", {}).items()
        ]
        end = int(start) + int(request.query["limit"])
        short = request.headers["Accept"] == METADATA_LIST
        items = [{"metadata": obj["metadata"]} if short else _untyped(obj) for obj in found[int(start) : end]]
        token = f"{moment}:{end}" if end < len(found) else ""
        return web.json_response({"metadata": {"resourceVersion": moment, "continue": token}, "items": items})


def _parse(path: str) -> tuple[Api | None, str, str]:
    """The kind, the namespace and the name of a path."""
    for api in APIS.values():
        root = api.path().removesuffix(f"/{api.plural}")
        parts = path.removeprefix(root).strip("/").split("/")
        namespace = parts[1] if parts[0] == "namespaces" and len(parts) > 2 else ""
        rest = parts[2:] if namespace else parts
        if path.startswith(f"{root}/") and rest[0] == api.plural and len(rest) <= 2:
            return api, namespace, rest[1] if len(rest) == 2 else ""
    return None, "", ""


def _untyped(obj: Json) -> Json:
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}


def _status(code: int) -> web.Response:
    body = {"kind": "Status", "metadata": {}, "code": code, "reason": "Because", "message": f"as told: {code}"}
    return web.json_response(body, status=code)
