"""What the operator tells of itself, in Prometheus' format. Every name is here, with its meaning."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

REGISTRY: Final = CollectorRegistry()
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)

PASSES: Final = Histogram(
    "posttrain_reconcile_seconds",
    "Seconds of one pass of the loop, by kind and outcome.",
    ("kind", "outcome"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
REQUESTS: Final = Histogram(
    "posttrain_api_request_seconds",
    "Seconds of one request to the API server, by verb and status code; 0 is no answer.",
    ("verb", "code"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
QUEUE_DEPTH: Final = Gauge("posttrain_queue_depth", "Objects that wait for a pass.", registry=REGISTRY)
QUEUE_WORKING: Final = Gauge("posttrain_queue_working", "Objects that a worker holds.", registry=REGISTRY)
CACHE_OBJECTS: Final = Gauge("posttrain_cache_objects", "Objects in the cache, of all kinds.", registry=REGISTRY)
JOBS: Final = Gauge(
    "posttrain_jobs", "Objects of the four kinds, by kind and phase.", ("kind", "phase"), registry=REGISTRY
)
ATTEMPTS: Final = Counter(
    "posttrain_attempts_total", "Attempts that ended, by kind and outcome.", ("kind", "outcome"), registry=REGISTRY
)
PROGRESS_AGE: Final = Gauge(
    "posttrain_stage_progress_age_seconds",
    "Seconds since the stage of a running attempt told of progress, the largest by kind.",
    ("kind",),
    registry=REGISTRY,
)
LEADER: Final = Gauge("posttrain_leader", "1 while this process holds the lease, else 0.", registry=REGISTRY)
MISSED: Final = Counter(
    "posttrain_missed_changes_total",
    "Changes that a sweep found before an event told of them.",
    ("kind",),
    registry=REGISTRY,
)


def request(verb: str, code: int, seconds: float) -> None:
    """Counts a request to the API server."""
    REQUESTS.labels(verb, str(code)).observe(seconds)


def attempts(kind: str, outcomes: Iterable[str]) -> None:
    """Counts attempts that ended."""
    for outcome in outcomes:
        ATTEMPTS.labels(kind, outcome).inc()


def jobs(phases: Iterable[tuple[str, str]]) -> None:
    """Counts the objects anew: (kind, phase) of each."""
    JOBS.clear()
    for kind, phase in phases:
        JOBS.labels(kind, phase).inc()


def progress_ages(ages: Mapping[str, float]) -> None:
    """Sets the age of the oldest progress, in seconds, by kind."""
    PROGRESS_AGE.clear()
    for kind, age in ages.items():
        PROGRESS_AGE.labels(kind).set(age)


def exposition() -> bytes:
    """Everything, as /metrics answers it."""
    return generate_latest(REGISTRY)
