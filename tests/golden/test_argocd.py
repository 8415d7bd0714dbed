"""argocd/: what Argo CD shows of a job at every point of its life and can do with it, and what Flux makes of it."""

import copy
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import yaml
from posttrain_operator.api.resources import KINDS, parse
from posttrain_operator.api.status import Phase
from posttrain_operator.cluster import Json
from posttrain_operator.errors import InvalidSpec
from posttrain_operator.labels import GROUP
from support.argo import ACTIONS, CONFIG_MAP, TREE, act, discover, health, jobs, script, tree
from support.kstatus import kstatus
from support.release import ROOT
from support.scene import Scene

FOLDER: Final = ROOT / "argocd"
GOLDEN: Final = sorted(Path(__file__).parent.glob("expected/*.yaml"))
HEALTH: Final = {"Current": {"Healthy"}, "Failed": {"Degraded"}, "InProgress": {"Progressing", "Suspended"}}
"""What Argo CD may say where kstatus says this."""

every_kind = pytest.mark.parametrize("kind", KINDS)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def generated() -> list[Path]:
    return [path for path in (FOLDER / TREE).rglob("*") if path.is_file()] + [FOLDER / CONFIG_MAP]


def test_the_tree_is_what_the_scripts_and_the_operator_say(*, write_golden: bool) -> None:
    files = tree()
    if write_golden:
        for path in generated():
            path.unlink(missing_ok=True)
        for name, text in files.items():
            (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
            (FOLDER / name).write_text(text, "utf-8")
    written = {str(path.relative_to(FOLDER)): path.read_text("utf-8") for path in generated()}
    assert written == files, "if the change is meant, run: make golden"


@every_kind
def test_health_is_as_upstreams_own_test_would_find_it(kind: str) -> None:
    folder = FOLDER / TREE / kind
    tests = read(folder / "health_test.yaml")["tests"]
    for test in tests:
        found = health(read(folder / test["inputPath"]), (folder / "health.lua").read_text("utf-8"))
        assert found == test["healthStatus"], test["inputPath"]
    assert {Path(test["inputPath"]).name for test in tests} == {path.name for path in folder.glob("testdata/*.yaml")}


@every_kind
def test_actions_are_as_upstreams_own_test_would_find_them(kind: str) -> None:
    folder = FOLDER / TREE / kind / "actions"
    tests = read(folder / "action_test.yaml")
    for test in tests["discoveryTests"]:
        found = discover(read(folder / test["inputPath"]), (folder / "discovery.lua").read_text("utf-8"))
        assert found == test["result"], test["inputPath"]
    for test in tests["actionTests"]:
        text = (folder / test["action"] / "action.lua").read_text("utf-8")
        made = act(test["action"], read(folder / test["inputPath"]), text)
        assert made == the_object_of(folder / test["expectedOutputPath"])
    assert {test["action"] for test in tests["actionTests"]} == set(ACTIONS)


def the_object_of(path: Path) -> Any:
    """What an action is expected to make: upstream tells a list of operations from an object by its first character."""
    found = read(path)
    if path.read_text("utf-8").startswith("-"):
        ((operation, made),) = [(each["k8sOperation"], each["unstructuredObj"]) for each in found]
        assert operation == "create"
        return made
    return found


@every_kind
def test_there_is_a_job_in_every_phase(kind: str) -> None:
    assert {obj.get("status", {}).get("phase") for obj in jobs(kind).values()} == {None, *get_args(Phase)}


@every_kind
def test_health_by_the_point_of_a_life(kind: str) -> None:
    shown = {point: health(obj)["status"] for point, obj in jobs(kind).items()}
    assert {point for point, status in shown.items() if status == "Healthy"} == {"succeeded"}
    assert {point for point, status in shown.items() if status == "Degraded"} == {"failed", "input-failed", "invalid"}
    assert {point for point, status in shown.items() if status == "Suspended"} == {"suspended"}


@every_kind
def test_flux_sees_the_same(kind: str) -> None:
    for point, obj in jobs(kind).items():
        # kstatus takes an object that says nothing for Current: until the operator has seen it, some milliseconds.
        assert point == "created" or health(obj)["status"] in HEALTH[kstatus(obj)], point
        assert health(obj)["status"] != "Suspended" or kstatus(obj) == "InProgress", point


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_health_agrees_with_kstatus_in_every_golden_case(path: Path) -> None:
    status = read(path)["status"]
    if status:
        obj = {"metadata": {"generation": status.get("observedGeneration", 1)}, "status": status}
        found = health(obj)
        assert found["status"] in HEALTH[kstatus(obj)]
        (ready,) = [told for told in status["conditions"] if told["type"] == "Ready"]
        assert ready["message"] in found["message"]


def test_a_running_job_tells_how_far_it_is() -> None:
    assert health(jobs("FineTuneJob")["training"])["message"] == "Running: attempt 1 is at work, 41 %, loss 0.830"


@every_kind
def test_what_can_be_done_at_each_point(kind: str) -> None:
    offered = {point: [action["name"] for action in discover(obj)] for point, obj in jobs(kind).items()}
    assert offered.pop("succeeded") == []
    assert offered.pop("failed") == ["retry"]
    assert offered.pop("suspended") == ["resume"]
    assert set(map(tuple, offered.values())) == {("suspend",)}


@every_kind
def test_suspending_and_resuming_change_one_field(kind: str) -> None:
    obj = jobs(kind)["running"]
    del obj["spec"]["run"]
    suspended = act("suspend", obj)
    assert suspended == {**obj, "spec": {**obj["spec"], "run": {"suspend": True}}}
    assert act("resume", suspended)["spec"] == {**obj["spec"], "run": {"suspend": False}}


@every_kind
def test_the_operator_does_what_the_actions_ask_for(kind: str) -> None:
    scene = Scene(kind)
    for action, phase in (("suspend", "Suspended"), ("resume", "Starting")):
        changed = act(action, scene.cluster.objects[scene.ref])
        scene.cluster.edit(scene.ref, run=changed["spec"]["run"])
        scene.settle()
        assert scene.status.phase == phase


@every_kind
def test_a_retry_is_a_new_object_that_does_the_same(kind: str) -> None:
    failed = jobs(kind)["failed"]
    failed["metadata"] |= {"labels": {"app.kubernetes.io/instance": "app"}, "annotations": {"tracking": "app"}}
    again = act("retry", failed)
    assert again == act("retry", failed), "trying twice makes one object"
    metadata = failed["metadata"]
    assert again["metadata"] == {
        "name": f"{metadata['name']}-retry-{metadata['resourceVersion']}",
        "namespace": metadata["namespace"],
        "annotations": {f"{GROUP}/retry-of": metadata["name"]},
    }
    assert parse(admitted(again)).spec == parse(failed).spec
    assert again["spec"] == {key: value for key, value in failed["spec"].items() if value != {}}


def admitted(obj: Json) -> Json:
    return {**obj, "metadata": {**obj["metadata"], "uid": "new"}}


def test_a_retry_never_makes_another_job_than_the_one_that_failed() -> None:
    """Lua has one kind of table, and `lora: {}` is a request for an adapter."""
    failed = jobs("FineTuneJob")["failed"]
    failed["spec"]["adapter"] = {"lora": {}}
    again = act("retry", failed)
    assert again["spec"]["adapter"] == {"lora": []}
    with pytest.raises(InvalidSpec, match=r"adapter\.lora"):
        parse(admitted(again))


def test_a_retry_whose_name_would_be_too_long_is_refused_in_words() -> None:
    failed = copy.deepcopy(jobs("UploadJob")["failed"])
    failed["metadata"]["name"] = "a" * 60
    with pytest.raises(Exception, match="longer than the 63 characters of a name"):
        act("retry", failed)


def test_the_settings_hold_the_same_scripts_for_every_kind() -> None:
    data = read(FOLDER / CONFIG_MAP)["data"]
    assert len(data) == 2 * len(KINDS)
    for kind in KINDS:
        assert data[f"resource.customizations.health.{GROUP}_{kind}"] == script("health")
        actions = yaml.safe_load(data[f"resource.customizations.actions.{GROUP}_{kind}"])
        assert actions["discovery.lua"] == script("discovery")
        assert {each["name"]: each["action.lua"] for each in actions["definitions"]} == {
            name: script(name) for name in ACTIONS
        }


def test_the_sample_applications_install_what_is_there_and_ignore_nothing() -> None:
    operator, team = yaml.safe_load_all((FOLDER / "application.yaml").read_text("utf-8"))
    assert (ROOT / operator["spec"]["source"]["path"] / "kustomization.yaml").is_file()
    assert not [app for app in (operator, team) if "ignoreDifferences" in app["spec"]]
    assert team["spec"]["syncPolicy"]["automated"] == {"prune": False, "selfHeal": True}
