"""Every field of ``run``, and of what a stage answers, decides something."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.result import StageResult
from posttrain_operator import reconcile
from posttrain_operator.api.resources import Resource, parse
from posttrain_operator.api.run import RunSpec
from posttrain_operator.observe import pods
from posttrain_operator.plan.finished import after_finish
from support.recording import leaves, recorded
from support.scene import ARTIFACT, SUCCESS, Scene, failure, retried, started

RUN: dict[str, Any] = {
    "resources": {"gpus": 1},
    "tolerations": [{"key": "a", "value": "b", "effect": "NoSchedule"}],
    "env": [{"name": "A", "value": "b"}],
}


def test_every_field_of_run_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def watched(raw: Any) -> Resource:
        resource = parse(raw)
        return replace(resource, run=recorded(resource.run, seen))

    monkeypatch.setattr(reconcile, "parse", watched)
    Scene("UploadJob", run={**RUN, "queue": "team", "priorityClass": "high"}).settle()
    started("FineTuneJob", run=RUN, tracking={"wandb": {"project": "math"}})
    scene = started("UploadJob", run=RUN)
    scene.end_workers(ExitCode.UNREACHABLE, failure(ExitCode.UNREACHABLE))
    retried(scene)
    assert scene.outcomes == ["Failed", None]
    after_finish(scene.status, watched(scene.cluster.objects[scene.ref]).run, scene.attempts, now=scene.now)
    assert seen == set(leaves(RunSpec.parse(RUN)))


def watching(read: Callable[[str], StageResult | None], seen: set[str]) -> Callable[[str], StageResult | None]:
    """Reads results as the operator does, and notes what is read of them."""

    def watched(message: str) -> StageResult | None:
        result = read(message)
        return None if result is None else recorded(result, seen)

    return watched


def test_every_field_of_a_result_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    monkeypatch.setattr(pods, "_result", watching(pods._result, seen))
    scene = started()
    scene.end_workers(ExitCode.PREEMPTED, failure(ExitCode.PREEMPTED))
    retried(scene)
    scene.start_pods()
    scene.end_workers(ExitCode.DONE, SUCCESS)
    scene.settle()
    assert scene.status.artifact == ARTIFACT
    assert {field for field in seen if "." not in field} == StageResult.model_fields.keys() - {"artifact"}
