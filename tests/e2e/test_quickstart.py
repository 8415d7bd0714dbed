"""The quickstart on real nodes: images, the real training operator and kubelet, a real claim, the cluster's own DNS."""

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest
from support.helper_pods import artifacts
from support.hub_on_cluster import TOKEN, HubOnCluster
from support.kubectl import Json, kustomize
from support.on_cluster import KINDS, JobOnCluster, OnCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "quickstart"
SECONDS: Final = 1500.0
PIPELINE_SECONDS: Final = 480.0
"""From the apply to the last success, on two cores. It is waited for longer, to tell how long it took."""
NAMES: Final = ("hard-problems", "addition-sft", "addition-grpo", "addition-release")
SECRET: Final = "hf-token"
PUBLISHING: Final[Json] = {
    "secrets": {"huggingFace": SECRET},
    # The stand-in speaks the Hub's older protocol alone.
    "env": [{"name": "HF_HUB_DISABLE_XET", "value": "1"}],
}


def test_the_quickstart_succeeds_on_a_cluster(empty: OnCluster, hub: HubOnCluster) -> None:
    make_inputs(empty)
    empty.kubectl.apply([hub.way_out()])
    began = time.monotonic()
    jobs = apply(empty)
    empty.wait_for(lambda: all(job.holds("Succeeded") for job in jobs.values()), "all to succeed", seconds=SECONDS)
    took = time.monotonic() - began
    assert took <= PIPELINE_SECONDS, f"the pipeline took {took:.0f} s"
    assert jobs["FilterJob"].status["metrics"]["rowsKept"] == 4000
    assert [len(job.attempts) for job in jobs.values()] == [1, 1, 1, 1]
    assert_the_gang_was_two_pods_of_the_training_operator(empty, jobs["FineTuneJob"])
    assert_rollouts_came_from_a_server_that_dns_names(empty, jobs["RLJob"])
    assert_artifacts_are_whole(empty, jobs)
    assert_all_was_published(hub, jobs["UploadJob"])


def make_inputs(scene: OnCluster) -> None:
    """What the quickstart's page says, in another namespace."""
    scene.kubectl.apply(kustomize(EXAMPLE / "inputs", namespace=scene.kubectl.namespace))
    scene.wait_for_job("quickstart-inputs")


def apply(scene: OnCluster) -> dict[str, JobOnCluster]:
    """Applies the four files as they are. The Hub's token is added while the upload still waits for the model."""
    scene.kubectl.run("create", "secret", "generic", SECRET, f"--from-literal=token={TOKEN}")
    scene.kubectl.run("apply", "-f", f"{EXAMPLE}/")
    patch = json.dumps({"spec": {"run": PUBLISHING}})
    scene.kubectl.run("patch", "uploadjob", NAMES[-1], "--type=merge", f"--patch={patch}")
    return {kind: scene.job(kind, name) for kind, name in zip(KINDS, NAMES, strict=True)}


def assert_the_gang_was_two_pods_of_the_training_operator(scene: OnCluster, tuning: JobOnCluster) -> None:
    pods = tuning.pods()
    assert len(pods) == 2, "the quickstart's fine-tuning is distributed"
    (job,) = {owner["name"] for pod in pods for owner in pod["metadata"]["ownerReferences"]}
    assert scene.children[job]["kind"] == "PyTorchJob"
    for pod in pods:
        assert pod["metadata"]["labels"]["training.kubeflow.org/job-name"] == job
        assert environment(pod)["PET_NNODES"] == "2"
    assert len({pod["status"]["podIP"] for pod in pods}) == 2


def assert_rollouts_came_from_a_server_that_dns_names(scene: OnCluster, rl: JobOnCluster) -> None:
    configurations = [json.loads(found["data"]["stage.json"]) for found in stage_configurations(scene)]
    (server,) = next(found["servers"] for found in configurations if found["stage"] == "rl")
    name, service, namespace, _ = server.split(".")
    assert namespace == scene.kubectl.namespace
    (pod,) = rl.pods(role="servers")
    assert pod["metadata"]["name"] == name
    owner = pod["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("StatefulSet", service)
    figures = rl.status["metrics"]
    assert figures["weightVersion"] == 59, "weights go to the server before each of the 60 steps"
    assert figures["samplingLogpDifference"] < 1e-5, "the server sampled with other weights than were trained"
    assert figures["exactMatch"] >= figures["exactMatchBefore"] + 0.25


def assert_artifacts_are_whole(scene: OnCluster, jobs: dict[str, JobOnCluster]) -> None:
    found = artifacts(scene)
    told = {job.status["artifact"]["digest"] for job in jobs.values()}
    assert {state for state, _ in found.values()} == {"whole"}
    assert {digest for _, digest in found.values()} == told
    assert len(found) == len(jobs)


def assert_all_was_published(hub: HubOnCluster, upload: JobOnCluster) -> None:
    model, data = hub.files("models/quickstart/addition-qwen3"), hub.files("datasets/quickstart/hard-additions")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= model.keys()
    assert any(path.startswith("data/") and path.endswith(".parquet") for path in data)
    figures = upload.status["metrics"]
    assert figures["filesUploaded"] == len(model) + len(data)
    assert figures["bytesUploaded"] == sum(model.values()) + sum(data.values())


def stage_configurations(scene: OnCluster) -> list[dict[str, Any]]:
    return [found for found in scene.kubectl.objects("ConfigMap") if "stage.json" in found.get("data", {})]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    (container,) = pod["spec"]["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}
