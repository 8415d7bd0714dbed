"""The recipes of examples/finetune: each leads to a gang that can run, and fits the GPU that it asks for."""

import asyncio
import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from posttrain.main import cli
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.stage import FineTuneStage
from posttrain_operator.cluster import Json
from posttrain_operator.reconcile import reconcile
from posttrain_operator.settings import Settings
from support.memory_cluster import MemoryCluster

FOLDER = Path(__file__).parents[2] / "examples/finetune"
README = (FOLDER / "README.md").read_text()
RECIPES = sorted(path.name for path in FOLDER.glob("*.yaml"))
GPU_MEMORY = re.compile(r"-(\d+)GB\b")
"""In the GPU's name, which a recipe selects nodes by."""

every_recipe = pytest.mark.parametrize("name", RECIPES)


def read(name: str) -> Json:
    (obj,) = yaml.safe_load_all((FOLDER / name).read_text())
    return dict(obj)


@cache
def rendered(name: str) -> tuple[Json, Json]:
    """The ConfigMap and the PyTorchJob that the first pass makes."""
    obj = read(name)
    cluster = MemoryCluster()
    ref = cluster.apply({**obj, "metadata": {"namespace": "team", "uid": "u", **obj["metadata"]}})
    asyncio.run(reconcile(cluster, ref, Settings(), now=datetime(2026, 1, 1, tzinfo=UTC)))
    children = {child["kind"]: child for child in cluster.objects.values()}
    return children["ConfigMap"], children["PyTorchJob"]


def plan(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["plan", *arguments], catch_exceptions=False)


@cache
def plans() -> dict[str, Any]:
    """What ``posttrain plan`` says of each recipe, by file."""
    answer = json.loads(plan(str(FOLDER), "--json").stdout)
    return {name: answer[f"FineTuneJob/{read(name)['metadata']['name']}"] for name in RECIPES}


def test_the_sizes_and_methods_that_people_start_from_are_there() -> None:
    specs = {name: read(name)["spec"] for name in RECIPES}
    assert {name.partition("-")[0] for name in RECIPES} >= {"8b", "13b", "70b", "llm", "llama"}
    assert {spec["method"] for spec in specs.values()} == {"sft", "dpo"}
    assert any(spec.get("distributed", {}).get("nodes", 1) > 1 for spec in specs.values())
    assert {spec.get("adapter", {}).get("quantization") for spec in specs.values()} == {None, "nf4"}


@every_recipe
def test_a_recipe_is_valid(name: str) -> None:
    result = CliRunner().invoke(cli, ["validate", str(FOLDER / name)])
    assert (result.exit_code, result.output) == (0, "1 object is valid\n")


@every_recipe
def test_a_recipe_leads_to_its_gang(name: str) -> None:
    spec, (_, gang) = read(name)["spec"], rendered(name)
    wanted = {"nodes": 1, "processesPerNode": 1, **spec.get("distributed", {})}
    workers = gang["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert workers["replicas"] == wanted["nodes"]
    assert gang["spec"]["nprocPerNode"] == str(wanted["processesPerNode"])
    pod = workers["template"]["spec"]
    (container,) = pod["containers"]
    resources = spec["run"]["resources"]
    assert wanted["processesPerNode"] == resources["gpus"], "one process a GPU"
    amounts = {"cpu": resources["cpu"], "memory": resources["memory"], "nvidia.com/gpu": str(resources["gpus"])}
    scratch = {"requests": "0", "limits": "10Gi"}
    assert container["resources"] == {key: {**amounts, "ephemeral-storage": scratch[key]} for key in scratch}
    assert pod["nodeSelector"] == spec["run"]["nodeSelector"]
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["PET_MASTER_ADDR"]["value"] == f"{gang['metadata']['name']}-worker-0"
    assert "valueFrom" in environment["PET_NODE_RANK"]
    assert {variable["name"] for variable in spec["run"].get("env", [])} <= environment.keys()


@every_recipe
def test_a_recipe_reaches_the_stage_as_it_is_written(name: str) -> None:
    config, _ = rendered(name)
    stage = FineTuneStage.parse(json.loads(config["data"]["stage.json"]))
    what = {field: value for field, value in read(name)["spec"].items() if field != "run"}
    assert stage.spec == FineTuneSpec.parse(what)
    assert stage.run.gpus == read(name)["spec"]["run"]["resources"]["gpus"]


@every_recipe
def test_a_gated_model_comes_with_the_name_of_a_secret(name: str) -> None:
    spec = read(name)["spec"]
    gated = spec["model"]["uri"].startswith("hf://meta-llama/")
    assert gated == ("huggingFace" in spec["run"].get("secrets", {}))


@every_recipe
def test_a_recipe_fits_the_gpu_that_it_asks_for(name: str) -> None:
    match = GPU_MEMORY.search(read(name)["spec"]["run"]["nodeSelector"]["nvidia.com/gpu.product"])
    assert match is not None
    room = int(match[1]) * 10**9
    assert plans()[name]["total"] <= 0.85 * room, "an estimate wants room to err"


@every_recipe
def test_its_estimate_in_the_readme_is_what_plan_says(name: str) -> None:
    (row,) = [line for line in README.splitlines() if f"({name})" in line]
    assert row.endswith(f"| {plans()[name]['total'] / 2**30:.1f} GiB |")


def test_the_readme_shows_what_plan_prints() -> None:
    shown = plan(str(FOLDER / "70b-lora.yaml")).stdout
    assert f"```\n$ posttrain plan examples/finetune/70b-lora.yaml\n{shown}```" in README


def test_a_recipe_on_a_smaller_gpu_gets_a_warning() -> None:
    result = plan(str(FOLDER / "70b-qlora.yaml"), "--gpu-memory", "24Gi")
    assert result.exit_code == 0
    assert "WARNING: FineTuneJob/llama-3-70b-qlora cannot fit; what would: " in result.stdout
