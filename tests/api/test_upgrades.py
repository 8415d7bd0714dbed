"""The operator and its CRDs are replaced while jobs wait, run and are over: from the last release to this, and back."""

import threading
from pathlib import Path

import pytest
import yaml
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.cluster import Ref
from support.api import Api
from support.control_plane import ControlPlane
from support.playground import PlayedJob, Playground, playground
from support.pod_lives import fails, held, works
from support.release import ROOT
from support.scene import SPECS
from support.stories import wait_free

pytestmark = pytest.mark.timeout(300)
RELEASE = max((ROOT / "tests" / "releases").iterdir())


def install(api: Api, folder: Path) -> None:
    """What an administrator does first: the CRDs."""
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text("utf-8")
        name = yaml.safe_load(text)["metadata"]["name"]
        api.apply_text(Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name), text)


def births(ground: Playground) -> list[str]:
    """The uids of everything that was ever made of the jobs."""
    return [obj["metadata"]["uid"] for obj in ground.chronicle.births]


def ends(ground: Playground) -> list[str]:
    """The uids of everything that was deleted and that jobs keep: not servers and pods that were stopped."""
    return [obj["metadata"]["uid"] for obj in ground.chronicle.deaths if obj["kind"] in ("Job", "PyTorchJob")]


def uids(job: PlayedJob) -> set[str]:
    """Those of a job and of all that was made of it."""
    return {obj["metadata"]["uid"] for obj in (job.raw, *job.children, *job.pods)}


def begin(ground: Playground, gate: threading.Event) -> tuple[list[PlayedJob], list[PlayedJob]]:
    """Jobs of every kind; returns those that run, or wait for one that does, and those that are over or suspended."""
    running = [ground.submit(kind, held(gate, works)) for kind in SPECS]
    waiting = ground.submit("FineTuneJob", dataset={"from": f"FilterJob/{running[0].ref.name}"})
    done = [ground.submit(kind) for kind in SPECS]
    failed = ground.submit("UploadJob", fails(ExitCode.DATA, "BadData"))
    suspended = ground.submit("RLJob", run={"suspend": True})
    for job in done:
        job.finish()
    failed.finish("Failed", "BadData")
    for job in (*done, failed):
        wait_free(job)
    suspended.reach("Suspended")
    for job in running:
        job.reach("Running")
    waiting.reach("Waiting")
    return [*running, waiting], [*done, failed, suspended]


def test_nobody_is_disturbed(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    gate = threading.Event()
    access = own_control_plane.access
    with access.api() as api, playground(access, api, tmp_path) as ground:
        install(api, RELEASE / "crds")
        to_come, over = begin(ground, gate)
        told = {job.ref: job.status for job in (*to_come, *over)}
        before, at_work = births(ground), {job.ref: uids(job) for job in to_come}
        for crds in (ROOT / "crds", RELEASE / "crds"):
            ground.operator.kill()
            install(api, crds)
            ground.revive()
            probe = ground.submit("UploadJob")
            probe.finish()
            assert [uid for uid in births(ground) if uid not in uids(probe)] == before
            assert ends(ground) == []
            assert {job.ref: uids(job) for job in to_come} == at_work
            assert {job.ref: job.status for job in (*to_come, *over)} == told
            before = births(ground)
        gate.set()
        for job in to_come:
            job.finish()
        assert all(len(job.attempts) == 1 for job in to_come)
        assert ground.chronicle.illegal == []
