"""What processes tell of themselves: requests that the API server has counted, metrics, memory."""

import re
import urllib.request
from collections import Counter
from typing import Final

import psutil
from support.api_client import Server

_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_KINDS: Final = frozenset(
    [
        "filterjobs",
        "finetunejobs",
        "rljobs",
        "uploadjobs",
        "pytorchjobs",
        "jobs",
        "statefulsets",
        "services",
        "configmaps",
        "pods",
        "events",
    ]
)
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})


def object_requests(server: Server) -> Counter[str]:
    """Requests on account of single jobs, such as "PATCH finetunejobs/status": everybody's, as they were counted.

    A list counts when it is of one namespace: sweeps list the whole cluster, and cost the same however much there is.
    """
    headers = {"Authorization": f"Bearer {server.token}"}
    request = urllib.request.Request(f"{server.url}/metrics", headers=headers)  # noqa: S310 - it is https
    with urllib.request.urlopen(request, context=server.tls(), timeout=60) as answer:  # noqa: S310
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for series, value in samples(text, "apiserver_request_total"):
        resource, verb = series.get("resource", ""), series.get("verb", "")
        listed = verb == "LIST" and series.get("scope") == "namespace" and resource != "configmaps"
        if resource in _KINDS and (verb in _WRITES or verb == "GET" or listed):
            subresource = series.get("subresource")
            found[f"{verb} {resource}{f'/{subresource}' if subresource else ''}"] += int(value)
    return found


def writes(requests: Counter[str]) -> int:
    """How many of them change something."""
    return sum(count for request, count in requests.items() if request.split()[0] in _WRITES)


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The series of a metric in Prometheus' text format: (labels, value)."""
    start = text.find(f"\n{name}")
    found = _SAMPLE.finditer(text, max(start, 0))
    return [(dict(_LABEL.findall(sample[2] or "")), float(sample[3])) for sample in found if sample[1] == name]


def megabytes(process: int) -> float:
    """What a process holds in memory now, in MB (10^6 bytes)."""
    return psutil.Process(process).memory_info().rss / 1e6


def cpu_seconds(process: int) -> float:
    """Time of processors that a process has used."""
    used = psutil.Process(process).cpu_times()
    return used.user + used.system
