"""What the operator tells of itself: probes, metrics and logs."""

import json
import re
import threading
from pathlib import Path
from typing import Final

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Json
from prometheus_client.parser import text_string_to_metric_families
from support.api_client import Server
from support.control_plane import Access
from support.fault_proxy import fault_proxy
from support.faults import Answer, Fault, Request
from support.operator_process import OperatorProcess, kubeconfig
from support.playground import PlayedJob, Playground
from support.pod_lives import at_attempt, fails, held, runs, works_until
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

SETTINGS: Final = {"log_level": "debug"}
DOCUMENT: Final = Path(__file__).parents[2] / "docs/operator.md"
FULL: Final = fails(ExitCode.STORAGE, "DiskFull", "the disk is full")


def lines_of(operator: OperatorProcess) -> list[Json]:
    """The whole lines of its log, each of which must be a JSON object."""
    return [json.loads(line) for line in operator.log.read_text("utf-8").rpartition("\n")[0].splitlines()]


class Figures:
    """/metrics as it is now."""

    def __init__(self, operator: OperatorProcess) -> None:
        page = operator.page("/metrics")
        self.names = set(re.findall(r"^# TYPE (\w+)(?<!_created) ", page, re.MULTILINE))
        """Of all metrics, also of those without a sample yet."""
        self.samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]

    def of(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name with these labels."""
        found = [sample for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()]
        return sum(sample.value for sample in found)


def test_metrics_are_those_of_the_document_and_count_what_happened(ground: Playground) -> None:
    over = threading.Event()
    retried = ground.submit(life=held(over, at_attempt({1: FULL})))
    failed = ground.submit("UploadJob", FULL, run={"retries": 0})
    running = ground.submit("FilterJob", runs)
    for job in (retried, running):
        job.reach("Running")
    over.set()
    retried.finish()
    failed.finish("Failed", "DiskFull")
    wait_for(lambda: Figures(ground.operator).of("posttrain_attempts_total") == 3, "the last end to be counted")
    figures = Figures(ground.operator)
    assert figures.names == set(re.findall(r"`(posttrain_\w+)`", DOCUMENT.read_text("utf-8")))
    assert figures.of("posttrain_attempts_total", kind="FineTuneJob", outcome="Failed") == 1
    assert figures.of("posttrain_attempts_total", kind="FineTuneJob", outcome="Succeeded") == 1
    assert figures.of("posttrain_attempts_total", kind="UploadJob", outcome="Failed") == 1
    assert figures.of("posttrain_jobs", kind="FineTuneJob", phase="Succeeded") == 1
    assert figures.of("posttrain_jobs", kind="UploadJob", phase="Failed") == 1
    assert figures.of("posttrain_jobs", kind="FilterJob", phase="Running") == 1
    assert figures.of("posttrain_reconcile_seconds_count", kind="FineTuneJob", outcome="ok") >= 4
    assert figures.of("posttrain_reconcile_seconds_count", outcome="defect") == 0
    assert figures.of("posttrain_api_request_seconds_count", verb="POST", code="201") >= 8
    assert figures.of("posttrain_missed_changes_total") == 0
    assert figures.of("posttrain_leader") == 1
    wait_for(lambda: Figures(ground.operator).of("posttrain_queue_depth") == 0, "an empty queue")


def test_the_way_of_a_job_is_logged_as_json(ground: Playground) -> None:
    over = threading.Event()
    job = ground.submit(life=works_until(over))
    job.reach("Running")
    over.set()
    job.finish()
    wait_for(
        lambda: any("Succeeded" in line["message"] for line in way_of(job, ground.operator)), "the line of its end"
    )
    about = way_of(job, ground.operator)
    assert [line["message"] for line in about] == [
        "Starting: Starting: pods are starting",
        "Running: Running: attempt 1 is at work",
        "Succeeded: Succeeded: the artifact is published and verified",
    ]
    for line in about:
        assert (line["kind"], line["namespace"], line["generation"]) == ("FineTuneJob", ground.namespace, 1)
    assert [line.get("attempt") for line in about] == [None, 1, 1]
    shared = set.intersection(*(set(line) for line in lines_of(ground.operator)))
    assert shared >= {"time", "level", "logger", "message"}


def way_of(job: PlayedJob, operator: OperatorProcess) -> list[Json]:
    """The lines about a job's transitions."""
    return [line for line in lines_of(operator) if line.get("name") == job.ref.name and line["level"] == "info"]


def test_no_log_has_a_token(ground: Playground, control_plane: Access) -> None:
    ground.submit("UploadJob").finish()
    assert ground.operator.end() == 0
    log = ground.operator.log.read_text("utf-8")
    ground.revive()
    assert control_plane.admin_token not in log
    assert "Bearer" not in log


def test_it_is_ready_once_it_has_seen_the_whole_cluster(server: Server, namespace: str, tmp_path: Path) -> None:
    def no_pods(request: Request) -> Fault | None:
        return Answer(503) if (request.verb, request.resource) == ("list", "pods") else None

    with fault_proxy(server.url, server.tls(), no_pods) as proxy:
        own = {"POSTTRAIN_NAMESPACES": namespace, "POSTTRAIN_LEASE_NAMESPACE": namespace}
        operator = OperatorProcess(tmp_path, kubeconfig(proxy.url, server.token), own)
        operator.start()
        try:
            wait_for(lambda: any(no_pods(entry.request) for entry in [*proxy.passed]), "the operator to ask for pods")
            assert operator.answer("/readyz") == 503
            assert operator.answer("/healthz") == 200
            assert Figures(operator).of("posttrain_leader") == 0
            proxy.rules = ()
            operator.wait_ready()
            assert operator.answer("/healthz") == 200
        finally:
            operator.kill()
