"""Objects that nobody meant to write, at a real API server: the operator says what is wrong, and serves the others."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from posttrain_operator import labels
from posttrain_operator.api.quantities import to_datetime
from posttrain_operator.api.status import read_status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.labels import Reason
from support.api import Api, ApiError
from support.mutations import mutated, mutated_alike, poisoned
from support.playground import PlayedJob, Playground
from support.scene import SPECS
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)
LATEST: Final = 5.0
"""Seconds that a job of somebody else may wait for its child meanwhile."""
REFUSALS: Final = (400, 422)
"""Statuses of an API server to which an object means nothing."""
LONG_LISTS: Final[Json] = {
    "env": [{"name": f"A{number}", "value": ""} for number in range(10_000)],
    "tolerations": [{"key": f"a{number}"} for number in range(10_000)],
    "imagePullSecrets": [f"a{number}" for number in range(10_000)],
}
RUNS: Final[Json] = {
    "retries": 1,
    "deadline": "1h",
    "queue": "team-a",
    "image": "other:1",
    "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
    "nodeSelector": {"disk": "fast"},
    "env": [{"name": "A", "value": "b"}],
    "podLabels": {"team": "a"},
    "storage": {"claim": "posttrain"},
}


def somebodys(seed: int, namespace: str) -> Json:
    """An object that may or may not be accepted."""
    chance = random.Random(seed)
    kind = chance.choice(sorted(SPECS))
    spec = {**copy.deepcopy(SPECS[kind]), "run": copy.deepcopy(RUNS)}
    change = chance.choice([mutated, mutated_alike, mutated_alike])
    metadata = {
        "name": f"hostile-{seed}",
        "namespace": namespace,
        "labels": {labels.KIND: chance.choice(["RLJob", "x", kind]), labels.NAME: "job", labels.ATTEMPT: "x7"},
        "annotations": {"kopf.zalando.org/last-handled-configuration": "{", "note": "x" * chance.randrange(50_000)},
    }
    return {"apiVersion": labels.API_VERSION, "kind": kind, "metadata": metadata, "spec": change(chance, spec)}


def accepted(api: Api, seeds: range, namespace: str) -> Iterator[Ref]:
    """Creates an object for each seed; those that the API server refuses are no trouble of ours."""
    for seed in seeds:
        try:
            yield Ref.of(api.create(somebodys(seed, namespace)))
        except ApiError as refused:
            if refused.status not in REFUSALS:
                raise


def damage(api: Api, job: PlayedJob, chance: random.Random) -> int:
    """Changes what the API server lets pass in a job's status, its children and their pods; returns how much."""
    done = 0
    for obj in (job.raw, *job.children, *job.pods):
        changed = poisoned(chance, obj)
        parts = {"metadata": {key: changed["metadata"].get(key) for key in ("labels", "annotations")}}
        for subresource, part in (("status", {"status": changed.get("status")}), ("", parts)):
            try:
                api.patch(Ref.of(obj), part, subresource=subresource)
                done += 1
            except ApiError as refused:
                if refused.status not in (*REFUSALS, 404, 409):
                    raise
    return done


def seconds_to_child(ground: Playground) -> float:
    """How long somebody's ordinary job waits for its child, by the API server's clock, which counts whole seconds.

    When this process sees it does not matter: it follows thousands of objects, and is slower at that than the operator.
    """
    job = ground.submit("UploadJob")
    job.wait(lambda: any(child["kind"] == "Job" for child in job.children), "have its child")
    made = next(child["metadata"]["creationTimestamp"] for child in job.children if child["kind"] == "Job")
    return (to_datetime(made) - to_datetime(job.raw["metadata"]["creationTimestamp"])).total_seconds()


def check(ground: Playground, api: Api, seeds: range) -> None:
    made: list[Ref] = []
    waits: list[float] = []
    for first in range(seeds.start, seeds.stop, 100):
        made += accepted(api, range(first, min(first + 100, seeds.stop)), ground.namespace)
        waits.append(seconds_to_child(ground))
    assert len(made) > len(seeds) / 10, "nearly everything was refused: nothing was tried"
    assert max(waits) <= LATEST, waits
    wait_for(lambda: not unsaid(ground, made), "a word about every object")
    assert ground.operator.alive
    assert ground.operator.starts == 1
    assert 'outcome="defect"' not in ground.operator.page("/metrics")


def unsaid(ground: Playground, refs: list[Ref]) -> list[Ref]:
    """The objects of which the operator has not said how they are and why; that it does not know is no answer."""
    told = {Ref.of(job): read_status(job.get("status")).condition("Ready") for job in ground.chronicle.jobs()}
    return [ref for ref in refs if (ready := told.get(ref)) is None or ready.reason in ("", Reason.INTERNAL_ERROR)]


def test_any_object_that_is_accepted_is_told_how_it_is(ground: Playground, api: Api) -> None:
    check(ground, api, range(500))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_any_of_ten_thousand_objects_is_told_how_it_is(ground: Playground, api: Api) -> None:
    check(ground, api, range(500, 10_500))


def test_damage_to_one_job_is_no_matter_to_another(ground: Playground, api: Api) -> None:
    chance = random.Random(4)
    jobs = [ground.submit(kind, name=f"{kind.lower()}-{number}") for number in range(3) for kind in sorted(SPECS)]
    done = 0
    for _ in range(2):
        done += sum(damage(api, job, chance) for job in jobs)
        assert seconds_to_child(ground) <= LATEST
    assert done > 20
    assert ground.operator.alive
    assert ground.operator.starts == 1
    assert 'outcome="defect"' not in ground.operator.page("/metrics")
    ground.chronicle.illegal.clear()  # what somebody else wrote into a status is no word of the operator


def test_an_object_of_more_than_a_megabyte_is_refused_or_told_how_it_is(ground: Playground, api: Api) -> None:
    obj = somebodys(0, ground.namespace)
    obj["metadata"] |= {"name": "huge", "annotations": {f"a{number}": "x" * 60_000 for number in range(4)}}
    obj["kind"], obj["spec"] = "UploadJob", {**SPECS["UploadJob"]}
    ref = Ref.of(api.create(obj))
    wait_for(lambda: not unsaid(ground, [ref]), "a word about it")
    for field, value in LONG_LISTS.items():
        with pytest.raises(ApiError, match=r"at most|must have"):
            api.patch(ref, {"spec": {"run": {field: value}}})
    assert Path(f"/proc/{ground.operator.pid}").exists()
    assert ground.operator.memory_mib <= 512
