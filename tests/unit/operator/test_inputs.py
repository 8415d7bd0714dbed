"""Inputs: what a pod mounts for what the user named, and what is refused or awaited."""

from typing import Any

import pytest
from posttrain_contract.artifact import ArtifactSummary
from posttrain_operator import labels
from posttrain_operator.api.resources import Resource, parse
from posttrain_operator.api.status import InputStatus
from posttrain_operator.cluster import Ref
from posttrain_operator.errors import InvalidSpec, Waiting
from posttrain_operator.observe.facts import Upstream
from posttrain_operator.plan.inputs import Inputs, resolve
from posttrain_operator.settings import Settings

Json = dict[str, Any]
REF = Ref(labels.API_VERSION, "FineTuneJob", "team", "base")
ARTIFACT = ArtifactSummary(uri="pvc://posttrain/team/base/artifact", digest="0" * 64, type="model", bytes=1)
LOCAL = Settings(file_uris=True)


def resource(model: Json, dataset: Json | None = None, **run: Any) -> Resource:
    return parse(
        {
            "apiVersion": labels.API_VERSION,
            "kind": "FineTuneJob",
            "metadata": {"name": "sft", "namespace": "team", "uid": "u"},
            "spec": {"model": model, "dataset": dataset or {"uri": "pvc://posttrain/data"}, "run": run},
        }
    )


def resolved(model: Json, dataset: Json | None = None, *, settings: Settings | None = None, **run: Any) -> Inputs:
    return resolve(resource(model, dataset, **run), {}, settings or Settings())


def awaited(upstream: Upstream) -> Waiting:
    with pytest.raises(Waiting) as caught:
        resolve(resource({"from": "FineTuneJob/base"}), {"model": upstream}, Settings())
    return caught.value


def test_what_lies_in_the_store_needs_no_further_mount() -> None:
    found = resolved({"uri": "pvc://posttrain/models/base"})
    assert found.resolved["model"].path == "store/models/base"
    assert found.volumes == ()


def test_another_claim_is_mounted_once_and_read_only() -> None:
    found = resolved({"uri": "pvc://data/a"}, {"uri": "pvc://data/b/c"})
    assert [item.path for item in found.resolved.values()] == ["inputs/data/a", "inputs/data/b/c"]
    (volume,) = found.volumes
    assert (volume.mount, volume.source) == (
        "inputs/data",
        {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
    )


def test_the_store_is_the_claim_that_run_names() -> None:
    found = resolved({"uri": "pvc://data/a"}, {"uri": "pvc://posttrain/b"}, storage={"claim": "data"})
    assert [item.path for item in found.resolved.values()] == ["store/a", "inputs/posttrain/b"]


def test_different_claims_have_different_volumes_with_names_that_are_dns_labels() -> None:
    found = resolved({"uri": "pvc://da.ta/a"}, {"uri": "pvc://da-ta/a"})
    assert len({volume.name for volume in found.volumes}) == 2
    assert all(volume.name.replace("-", "").isalnum() for volume in found.volumes)


def test_an_artifact_is_read_where_its_maker_published_it() -> None:
    upstream = Upstream(REF, exists=True, artifact=ARTIFACT)
    found = resolve(resource({"from": "FineTuneJob/base"}), {"model": upstream}, Settings())
    assert found.resolved["model"].uri == ARTIFACT.uri
    assert found.resolved["model"].digest == ARTIFACT.digest
    assert found.resolved["model"].path == "store/team/base/artifact"


def test_a_retry_reads_what_the_first_attempt_read() -> None:
    first = InputStatus(uri="pvc://posttrain/old", digest="1" * 64)
    upstream = Upstream(REF, exists=True, artifact=ARTIFACT)
    found = resolve(resource({"from": "FineTuneJob/base"}), {"model": upstream}, Settings(), pinned={"model": first})
    assert (found.resolved["model"].uri, found.resolved["model"].digest) == (first.uri, first.digest)


def test_a_local_file_is_refused_on_a_cluster_with_field_and_remedy() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.model\.uri: file:// works only with `posttrain run`.*pvc://"):
        resolved({"uri": "file:///data/base"})


def test_a_local_run_mounts_a_file_read_only_under_its_name() -> None:
    found = resolved({"uri": "file:///data/base"}, {"uri": "file:///other/base"}, settings=LOCAL)
    assert {volume.source["hostPath"]["path"] for volume in found.volumes} == {"/data/base", "/other/base"}
    paths = [item.path for item in found.resolved.values()]
    assert all(path.startswith("inputs/input-") and path.endswith("/base") for path in paths)
    assert len(set(paths)) == 2


def test_an_object_that_does_not_exist_is_awaited_by_name() -> None:
    waiting = awaited(Upstream(REF, exists=False))
    assert (waiting.reason, waiting.stalled) == ("WaitingForArtifact", False)
    assert str(waiting) == "FineTuneJob/base does not exist; apply it, or correct spec.model.from"


def test_an_object_that_is_not_ready_is_awaited_with_its_phase() -> None:
    assert str(awaited(Upstream(REF, exists=True, phase="Running"))) == "FineTuneJob/base is Running"


def test_an_object_that_failed_stalls_its_reader_with_the_cause() -> None:
    waiting = awaited(Upstream(REF, exists=True, phase="Failed", failure="no column"))
    assert (waiting.reason, waiting.stalled) == ("InputFailed", True)
    assert str(waiting) == "FineTuneJob/base failed: no column"


def test_a_cycle_is_refused_and_shown() -> None:
    upstream = Upstream(REF, exists=True, cycle=("FineTuneJob/sft", "FineTuneJob/base", "FineTuneJob/sft"))
    with pytest.raises(InvalidSpec, match="FineTuneJob/sft -> FineTuneJob/base -> FineTuneJob/sft"):
        resolve(resource({"from": "FineTuneJob/base"}), {"model": upstream}, Settings())


def told(kind: str, spec: Json) -> str:
    """What an object is refused for."""
    metadata = {"name": "x", "namespace": "team", "uid": "u"}
    with pytest.raises(InvalidSpec) as caught:
        parse({"apiVersion": labels.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})
    return str(caught.value)


def test_what_is_on_the_hub_is_fetched_into_the_namespaces_part_of_the_store() -> None:
    found = resolved({"uri": "hf://acme/base"}, {"uri": "hf://datasets/acme/rows@v1/train-*.parquet"})
    assert {item.path for item in found.resolved.values()} == {"store/team/hub"}
    assert found.resolved["model"].uri == "hf://acme/base"
    assert found.volumes == ()


@pytest.mark.parametrize(
    ("model", "dataset", "sentence"),
    [
        (
            "hf://datasets/acme/rows",
            "pvc://posttrain/rows",
            "spec.model.uri: must be a model, as in hf://ORG/NAME, but names a dataset",
        ),
        (
            "pvc://posttrain/base",
            "hf://acme/rows",
            "spec.dataset.uri: must be a dataset, as in hf://datasets/ORG/NAME, but names a model",
        ),
    ],
)
def test_a_model_and_a_dataset_on_the_hub_are_told_apart(model: str, dataset: str, sentence: str) -> None:
    assert sentence in told("FineTuneJob", {"model": {"uri": model}, "dataset": {"uri": dataset}})


def test_an_upload_publishes_what_a_job_made() -> None:
    spec = {"source": {"uri": "hf://acme/base"}, "repository": {"id": "acme/copy"}}
    assert "spec.source.uri: an UploadJob publishes what a job made" in told("UploadJob", spec)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://base",
        "hf://acme/base/file",
        "hf://acme/base@",
        "hf://acme/base@a/b",
        "hf:///acme/base",
        "hf://datasets/a/b/",
    ],
)
def test_an_address_that_names_no_repository_is_refused(uri: str) -> None:
    assert "spec.model.uri" in told("FineTuneJob", {"model": {"uri": uri}, "dataset": {"uri": "pvc://posttrain/rows"}})
