"""Makes the cache agree with the cluster: by whole lists, or by names and versions alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from posttrain_operator.cache import Cache, version_of
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.rest import METADATA_LIST, NOT_FOUND, Page, RefusedError, Rest, unexpected
from posttrain_operator.watched import Api

_MANY: Final = 50
"""Objects that are asked for one by one; of more, a list is cheaper."""
Changed = Callable[[Json], None]
"""Called with each object that was not as it was seen last; of one that is gone, as it was seen last."""


class UnknownKindError(ApiUnavailable):
    """The cluster does not know a kind without which there is nothing to do, such as ours before they are installed."""


@dataclass
class _Listed:
    """What a list told so far."""

    refs: set[Ref] = field(default_factory=set)
    version: int = 0
    missing: bool = False
    """Whether the cluster does not know the kind, or no longer does."""

    def take(self, page: Page) -> None:
        """One more page. One with another version begins the list anew: what was on earlier ones may be gone."""
        if page.version != self.version:
            self.refs.clear()
            self.version = page.version
        self.refs.update(Ref.of(obj) for obj in page.items)

    def gone_since(self, obj: Json) -> int | None:
        """The resource version as of which an object is gone, or None where it is listed."""
        if self.missing:
            return version_of(obj)
        return None if Ref.of(obj) in self.refs else self.version


async def refresh(
    rest: Rest,
    cache: Cache,
    api: Api,
    *,
    namespace: str = "",
    wanted: Mapping[str, str] | None = None,
    changed: Changed = lambda _: None,
) -> bool:
    """Lists the objects of a kind, all or those with the labels; returns whether the cluster knows the kind.

    Objects that are not in the list are gone, unless they are younger than it. Raises ``ApiUnavailable``.
    """
    selector = ",".join(f"{key}={value}" for key, value in wanted.items()) if wanted else api.selector
    listed = _Listed()
    try:
        async for page in rest.pages(api, namespace=namespace, selector=selector):
            listed.take(page)
            for obj in page.items:
                if cache.put(obj):
                    changed(obj)
    except RefusedError as refused:
        _allow_missing(api, refused)
        listed = _Listed(missing=True)
    _forget_others(cache, api, listed, namespace=namespace, wanted=wanted or {}, changed=changed)
    return not listed.missing


async def sweep(rest: Rest, cache: Cache, api: Api, *, namespace: str = "", changed: Changed = lambda _: None) -> bool:
    """Finds what events missed of one kind; returns whether the cluster knows it. Raises ``ApiUnavailable``."""
    listed = _Listed()
    stale: dict[Ref, None] = {}
    try:
        async for page in rest.pages(api, namespace=namespace, selector=api.selector, accept=METADATA_LIST):
            listed.take(page)
            stale |= {Ref.of(item): None for item in page.items if _is_newer(item, cache.get(Ref.of(item)))}
    except RefusedError as refused:
        _allow_missing(api, refused)
        listed, stale = _Listed(missing=True), {}
    _forget_others(cache, api, listed, namespace=namespace, wanted={}, changed=changed)
    if len(stale) > _MANY:
        return await refresh(rest, cache, api, namespace=namespace, changed=changed)
    for ref in stale:
        try:
            obj = await rest.get(api.path(ref.namespace, ref.name))
        except RefusedError as refused:
            if refused.code != NOT_FOUND:
                raise unexpected(refused) from refused
            continue  # gone meanwhile: the next sweep agrees
        if cache.put(obj):
            changed(obj)
    return not listed.missing


def _is_newer(item: Json, seen: Json | None) -> bool:
    return seen is None or version_of(seen) < version_of(item)


def _forget_others(
    cache: Cache,
    api: Api,
    listed: _Listed,
    *,
    namespace: str,
    wanted: Mapping[str, str],
    changed: Changed,
) -> None:
    for obj in cache.select(api.api_version, api.kind, namespace, wanted):
        version = listed.gone_since(obj)
        if version is not None and cache.remove(Ref.of(obj), version):
            changed(obj)


def _allow_missing(api: Api, refused: RefusedError) -> None:
    """A cluster may do without some kinds; anything else is trouble."""
    if refused.code != NOT_FOUND:
        raise unexpected(refused) from refused
    if not api.optional:
        raise UnknownKindError(f"the cluster does not know {api.kind} of {api.api_version}") from refused
