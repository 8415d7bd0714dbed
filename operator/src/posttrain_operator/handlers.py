"""kopf is the shell: it watches, reconnects and ends on signals. Every decorator is here; none writes to an object."""

import asyncio
import gc
import itertools
import logging
from typing import Any, Final

import kopf
from kopf._cogs.clients.errors import APINotFoundError  # these have no public names
from kopf._core.engines.peering import Identity

from posttrain_operator import labels
from posttrain_operator.controller import Controller
from posttrain_operator.probes import serve
from posttrain_operator.rest import load_configuration
from posttrain_operator.settings import Settings
from posttrain_operator.watched import CACHED

_LOGIN_PAUSE: Final = 1.0
"""Seconds after credentials were refused in which they are not tried again."""
_UNINSTALLED_PAUSE: Final = 1.0
"""Seconds that the API server gets to forget a kind that was uninstalled."""
_log = logging.getLogger(__name__)


async def operate(settings: Settings) -> None:
    """Runs the operator until it is told to end; begins anew when there is more to watch, or less."""
    while await _is_to_begin_anew(settings):
        gc.collect()  # two caches at once may be more than the pod's memory


async def _is_to_begin_anew(settings: Settings) -> bool:
    controller = Controller(settings)
    try:
        await kopf.operator(
            registry=_registry(controller),
            standalone=True,
            # Not told, kopf asks for the name of the user, and the one of a pod need not have any.
            identity=Identity(settings.identity),
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=controller.anew,
        )
    except APINotFoundError as error:
        # A kind that is watched was uninstalled; kopf gives up where it would do to watch the others.
        _log.warning("a kind is gone from the cluster, so watching begins anew: %s", error)
        await asyncio.sleep(_UNINSTALLED_PAUSE)
        return True
    return controller.anew.is_set()


def check(settings: Settings) -> None:
    """Raises when what the operator needs is not there: everything is imported already, and now told to kopf."""
    _registry(Controller(settings))
    _configure(kopf.OperatorSettings())


def _registry(controller: Controller) -> kopf.OperatorRegistry:
    """The handlers of one operator process."""
    handlers = kopf.OperatorRegistry()
    # A process that cannot start ends, and is started anew, whole; kopf would try the same handler again.
    once = kopf.ErrorsMode.PERMANENT

    @kopf.on.startup(registry=handlers, errors=once)
    async def start(settings: kopf.OperatorSettings, memo: Any, **_: Any) -> None:
        _configure(settings)
        memo.probes = await serve(controller, port=controller.settings.port)
        await controller.start()

    @kopf.on.cleanup(registry=handlers, errors=once)
    async def stop(memo: Any, **_: Any) -> None:
        await memo.probes.cleanup()
        await controller.stop()

    logins = itertools.count()

    @kopf.on.login(registry=handlers, backoff=_LOGIN_PAUSE)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        if number := next(logins):
            await asyncio.sleep(_LOGIN_PAUSE)
        return await _connection(number)

    async def seen(type: Any, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        controller.seen(type, dict(body))

    for api in CACHED:
        if api.watched:
            kopf.on.event(api.group, api.version, api.plural, registry=handlers)(seen)
    return handlers


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps no copy of any object: what changed is not asked for, and a copy costs more than the rest of an event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers: none of ours has any."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    # With its usual name kopf would take the finalizer of somebody else's kopf operator for its own, and remove it.
    settings.persistence.finalizer = f"{labels.GROUP}/unused"
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.queueing.idle_timeout = 1.0
    for api in CACHED:
        if api.watched and api.selector is not None:
            settings.watching.label_selectors[api.group, api.version, api.plural] = api.selector


async def _connection(number: int) -> kopf.ConnectionInfo:
    """The API server as kopf wants to be told of it.

    Unlike any before it, by its ``number``: one answer of 401 makes kopf throw a connection away, and end when it gets
    the same again; but an API server that restarts answers so to everybody for a moment.
    """
    configuration = await load_configuration()
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=header.split(maxsplit=1)[-1] if header else None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        priority=number,
    )
