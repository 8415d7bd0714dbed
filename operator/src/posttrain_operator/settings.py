"""What the operator itself can be told, as ``POSTTRAIN_<FIELD>`` and ``POSTTRAIN_IMAGE_<STAGE>`` in its environment."""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from posttrain_operator.api.quantities import DURATION, to_timedelta

STAGES = ("filter", "finetune", "rl", "serve", "upload")


def _default_images() -> dict[str, str]:
    return {stage: f"ghcr.io/posttrain/{stage}:0.1.0" for stage in STAGES}


@dataclass(frozen=True)
class Settings:
    """The operator's own knobs; the same for every object."""

    images: Mapping[str, str] = field(default_factory=_default_images)
    """Image of each stage, unless ``run.image`` names another."""

    hub_endpoint: str | None = None
    """URL of the Hub that UploadJobs publish to; None: they only make the folder in the Hub's layout."""

    file_uris: bool = False
    """Whether ``file://`` inputs are allowed; only the local executor allows them."""

    progress_interval: timedelta = timedelta(seconds=10)
    """How often the progress of a running attempt is read."""

    first_backoff: timedelta = timedelta(seconds=10)
    """Pause before the second attempt; it doubles with every further failure."""

    longest_backoff: timedelta = timedelta(minutes=10)
    """Upper bound of the pause between attempts."""

    termination_grace: timedelta = timedelta(minutes=5)
    """Time that a pod has between SIGTERM and SIGKILL, for saving a checkpoint."""

    queue_grace: timedelta = timedelta(seconds=60)
    """Time that a queue has to notice a child before the object is told ``QueueNotManaged``."""

    queue_hold: timedelta = timedelta(minutes=10)
    """How long an attempt may hold a part of its quota without the rest; doubles each time it let go in vain."""

    sweep_interval: timedelta = timedelta(seconds=60)
    """How often the names and versions of all objects are compared with what events told."""

    namespaces: tuple[str, ...] = ()
    """Namespaces that are worked in, separated by commas; none: all of the cluster."""

    lease_namespace: str = "posttrain-system"
    """Namespace of the Lease whose holder acts; it must exist."""

    lease_name: str = "posttrain-operator"
    """Name of the Lease."""

    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Who this process is in the Lease. In a pod it survives a restart of the container, so that no time is lost."""

    port: int = 8080
    """Port of /healthz, /readyz and /metrics."""

    log_level: str = "info"
    """debug, info, warning or error."""


class SettingsError(Exception):
    """A setting that cannot be used; the message names the variable."""


_PREFIX: Final = "POSTTRAIN_"
_IMAGE: Final = f"{_PREFIX}IMAGE_"
_OF_A_SERVICE: Final = re.compile(rf"{_PREFIX}\w+_(SERVICE_(HOST|PORT\w*)|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)\w*)")
"""What Kubernetes tells a pod of a Service whose name begins like our variables."""
_LEVELS: Final = ("debug", "info", "warning", "error")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that an environment holds. Raises ``SettingsError``."""
    values: dict[str, Any] = {}
    images = _default_images()
    for name, text in environment.items():
        if name.startswith(_IMAGE):
            stage = name.removeprefix(_IMAGE).lower()
            if stage not in STAGES:
                raise SettingsError(f"{name}: there is no stage {stage}; stages are {', '.join(STAGES)}")
            images[stage] = _read(name, text, _text)
        elif name.startswith(_PREFIX) and not _OF_A_SERVICE.fullmatch(name):
            key = name.removeprefix(_PREFIX).lower()
            if key not in _READ:
                known = ", ".join(sorted(f"{_PREFIX}{known.upper()}" for known in _READ))
                raise SettingsError(f"{name}: there is no such setting; settings are {known} and {_IMAGE}<STAGE>")
            values[key] = _read(name, text, _READ[key])
    return Settings(images=images, **values)


def _read(name: str, text: str, reader: Callable[[str], Any]) -> Any:
    try:
        return reader(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}, found {text!r}") from None


def _duration(text: str) -> timedelta:
    if not re.fullmatch(DURATION, text):
        raise ValueError("must be a time span such as 90s or 1h30m")
    return to_timedelta(text)


def _interval(text: str) -> timedelta:
    interval = _duration(text)
    if not interval:
        raise ValueError("must be longer than nothing")
    return interval


def _text(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names):
        raise ValueError("must be names of namespaces, separated by commas")
    return names


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError("must be a port number")
    return int(text)


def _level(text: str) -> str:
    if text not in _LEVELS:
        raise ValueError(f"must be one of {', '.join(_LEVELS)}")
    return text


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "hub_endpoint": _text,
    "progress_interval": _interval,
    "first_backoff": _duration,
    "longest_backoff": _duration,
    "termination_grace": _duration,
    "queue_grace": _duration,
    "queue_hold": _duration,
    "sweep_interval": _interval,
    "namespaces": _names,
    "lease_namespace": _text,
    "lease_name": _text,
    "identity": _text,
    "port": _port,
    "log_level": _level,
}
"""How each setting is read."""
