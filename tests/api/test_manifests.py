"""manifests/: every folder builds, and what it comes to keeps the security rules; no API server is asked."""

import itertools
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from posttrain_contract import layout
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Json
from posttrain_operator.labels import MANAGER
from posttrain_operator.settings import STAGES, Settings, from_environment
from support.manifests import (
    FOLDERS,
    INSTALLING,
    MOST_GRANTS,
    Peer,
    build,
    lets_in,
    lets_out,
    of_kind,
    pod_specs,
    rights,
)
from support.memory_cluster import pod_templates
from support.release import objects
from support.tools import Tools

SYSTEM: Final = "posttrain-system"
NEVER: Final = ("secrets", "pods/exec", "pods/attach", "serviceaccounts/token")
STRANGER: Final = Peer("elsewhere", {"app.kubernetes.io/name": "posttrain-operator"})

every_folder = pytest.mark.parametrize("folder", FOLDERS)
every_installation = pytest.mark.parametrize("folder", INSTALLING)
_built = cache(build)


@pytest.fixture(scope="module")
def kubectl_program(tools: Tools) -> Path:
    return tools.program("kubectl")


@pytest.fixture
def made(kubectl_program: Path, folder: str) -> list[Json]:
    """What a folder comes to."""
    return _built(kubectl_program, folder)


def deployment(made: list[Json]) -> Json:
    (only,) = of_kind(made, "Deployment")
    return only


def environment(made: list[Json]) -> dict[str, str]:
    """The operator's environment, in a pod named ``pod``."""
    metadata = {"metadata.name": "pod", "metadata.namespace": deployment(made)["metadata"]["namespace"]}
    (container,) = deployment(made)["spec"]["template"]["spec"]["containers"]
    return {
        entry["name"]: entry["value"] if "value" in entry else metadata[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in container["env"]
    }


def operator_pod(made: list[Json]) -> Peer:
    found = deployment(made)
    return Peer(found["metadata"]["namespace"], found["spec"]["template"]["metadata"]["labels"])


def test_every_installation_is_known() -> None:
    assert set(INSTALLING) < set(FOLDERS)
    assert {f"overlays/{name}" for name in ("namespaced", "kind", "production", "kueue", "argocd")} < set(FOLDERS)


@every_folder
def test_every_object_has_its_own_name_and_no_label_of_a_child(made: list[Json]) -> None:
    names = [(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in made]
    assert len(names) == len(set(names)) > 0
    labelled = [obj["metadata"].get("labels", {}) for obj in made]
    labelled += [obj["spec"]["template"]["metadata"]["labels"] for obj in of_kind(made, "Deployment")]
    assert not [labels for labels in labelled if labels.get("app.kubernetes.io/managed-by") == MANAGER]


@every_folder
def test_no_secret_is_made_or_mounted(made: list[Json]) -> None:
    assert of_kind(made, "Secret") == []
    for pod in pod_specs(made):
        assert not [volume for volume in pod.get("volumes", []) if "secret" in volume]


@every_folder
def test_rights_are_few_and_named(made: list[Json]) -> None:
    granted = rights(of_kind(made, "Role", "ClusterRole"))
    assert len(granted) == len(set(granted)) <= MOST_GRANTS
    assert not [right for right in granted if "*" in "".join(right)]
    assert not [right for right in granted if right[1] in NEVER or right[2] in ("escalate", "bind", "impersonate")]


@every_folder
def test_a_namespace_lets_in_nothing_but_restricted_pods(made: list[Json]) -> None:
    for namespace in of_kind(made, "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@every_installation
def test_the_operator_is_bounded(made: list[Json]) -> None:
    (pod,) = pod_specs(made)
    (container,) = pod["containers"]
    for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
        assert amounts.keys() == {"cpu", "memory", "ephemeral-storage"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["enableServiceLinks"] is False
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]
    assert of_kind(made, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"] == 1


@every_installation
def test_the_operator_is_told_what_it_knows(made: list[Json]) -> None:
    settings = from_environment(environment(made))
    namespace = deployment(made)["metadata"]["namespace"]
    assert (settings.identity, settings.lease_namespace) == ("pod", namespace)
    (lease,) = [role for role in of_kind(made, "Role") if role["metadata"]["name"] == "posttrain-operator-lease"]
    assert lease["metadata"]["namespace"] == namespace
    assert {name for rule in lease["rules"] for name in rule.get("resourceNames", [])} == {settings.lease_name}
    (container,) = deployment(made)["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": settings.port}]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}


@every_installation
def test_bindings_name_what_is_there(made: list[Json]) -> None:
    account = deployment(made)["spec"]["template"]["spec"]["serviceAccountName"]
    where = deployment(made)["metadata"]["namespace"]
    for binding in of_kind(made, "RoleBinding", "ClusterRoleBinding"):
        assert [role for role in of_kind(made, binding["roleRef"]["kind"]) if _named(role, binding["roleRef"]["name"])]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": where}]


def _named(obj: Json, name: str) -> bool:
    return bool(obj["metadata"]["name"] == name)


@pytest.mark.parametrize("folder", ["base", "overlays/kind", "overlays/production", "overlays/argocd"])
def test_the_kinds_come_with_a_whole_installation(made: list[Json]) -> None:
    plurals = {crd["spec"]["names"]["plural"] for crd in of_kind(made, "CustomResourceDefinition")}
    assert plurals == {kind.plural for kind in KINDS.values()}


@pytest.mark.parametrize("folder", ["overlays/namespaced"])
def test_a_teams_own_operator_has_no_right_outside_its_namespace(made: list[Json], kubectl_program: Path) -> None:
    assert {obj["metadata"].get("namespace") for obj in made} == {"team-a"}
    assert from_environment(environment(made)).namespaces == ("team-a",)
    whole = rights(of_kind(_built(kubectl_program, "base"), "Role", "ClusterRole"))
    assert sorted(rights(of_kind(made, "Role"))) == sorted(whole)


@pytest.mark.parametrize("folder", ["overlays/production"])
def test_production_has_two_replicas_on_different_nodes_above_every_job(made: list[Json]) -> None:
    found = deployment(made)["spec"]
    assert found["replicas"] == 2
    pod = found["template"]["spec"]
    spread = {each["topologyKey"]: each["whenUnsatisfiable"] for each in pod["topologySpreadConstraints"]}
    assert spread["kubernetes.io/hostname"] == "DoNotSchedule"
    assert [_named(each, pod["priorityClassName"]) for each in of_kind(made, "PriorityClass")] == [True]


@pytest.mark.parametrize("folder", ["overlays/kind"])
def test_a_small_cluster_needs_little_and_pulls_nothing(made: list[Json]) -> None:
    (container,) = deployment(made)["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("posttrain/operator:dev", "Never")
    images = from_environment(environment(made)).images
    assert images == dict.fromkeys(STAGES, "posttrain/cpu:dev"), "one image has every stage, so that two are loaded"
    assert deployment(made)["spec"]["replicas"] == 1


@pytest.mark.parametrize("folder", ["overlays/argocd"])
def test_argo_cd_makes_the_kinds_first_and_never_takes_them_away(made: list[Json]) -> None:
    for obj in of_kind(made, "CustomResourceDefinition", "Namespace"):
        annotations = obj["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-wave"] == "-1"
        assert "Prune=false" in annotations["argocd.argoproj.io/sync-options"].split(",")


def test_both_teams_can_use_their_queue(kubectl_program: Path) -> None:
    made = _built(kubectl_program, "overlays/kueue")
    queues = {queue["metadata"]["name"]: queue["spec"] for queue in of_kind(made, "ClusterQueue")}
    assert {queue["cohortName"] for queue in queues.values()} == {"posttrain"}
    spaces = {space["metadata"]["name"]: space["metadata"]["labels"] for space in of_kind(made, "Namespace")}
    flavors = {flavor["metadata"]["name"] for flavor in of_kind(made, "ResourceFlavor")}
    local = of_kind(made, "LocalQueue")
    assert len(local) == len(spaces) == len(queues) == 2
    for queue in local:
        spec, namespace = queues[queue["spec"]["clusterQueue"]], queue["metadata"]["namespace"]
        assert namespace in spaces
        assert spec["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}
        (group,) = spec["resourceGroups"]
        for flavor in group["flavors"]:
            assert flavor["name"] in flavors
            assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]


def stage_pods(kind: str, namespace: str) -> dict[str, Peer]:
    """The pods of a job that is at work, by role."""
    children = [obj for obj in objects(kind, "running") if obj["kind"] in ("Job", "PyTorchJob", "StatefulSet")]
    templates = [template for child in children for template in pod_templates(child)]
    labels = [template["metadata"]["labels"] for template in templates]
    return {each["app.kubernetes.io/component"]: Peer(namespace, each) for each in labels}


def policies(kubectl: Path, folder: str, team: str) -> list[Json]:
    """The policies of an installation, and of a team's namespace."""
    made = of_kind(_built(kubectl, folder), "NetworkPolicy")
    ours = [obj for obj in made if obj["metadata"]["namespace"] == team]
    if ours and folder == "overlays/namespaced":
        return made
    return [*made, *of_kind(_built(kubectl, f"overlays/kueue/{team}"), "NetworkPolicy")]


@pytest.mark.parametrize("folder", ["overlays/production", "overlays/namespaced"])
def test_the_pods_of_jobs_are_reached_by_their_like_alone(kubectl_program: Path, folder: str) -> None:
    rules = policies(kubectl_program, folder, "team-a")
    pods = {f"{kind} {role}": pod for kind in KINDS for role, pod in stage_pods(kind, "team-a").items()}
    others = {f"{name} elsewhere": Peer("team-b", pod.labels) for name, pod in pods.items()}
    others |= {"neighbour": Peer("team-a", {"app": "notebook"}), "stranger": STRANGER}
    others["operator"] = operator_pod(_built(kubectl_program, folder))
    # A gang meets at its first worker, servers are asked, weights are sent, and NCCL chooses a port.
    for port in (23456, layout.SERVER_PORT, layout.WEIGHT_PORT, 40000):
        reached = {
            (one, other)
            for one in pods | others
            for other in pods
            if lets_in(rules, (pods | others)[one], pods[other], port)
        }
        rl = ("RLJob trainer", "RLJob servers")
        assert reached == {("FineTuneJob trainer", "FineTuneJob trainer"), *itertools.product(rl, rl)}


@pytest.mark.parametrize("folder", ["overlays/production", "overlays/namespaced"])
def test_the_operator_alone_asks_every_job_how_far_it_is(kubectl_program: Path, folder: str) -> None:
    rules = policies(kubectl_program, folder, "team-a")
    operator = operator_pod(_built(kubectl_program, folder))
    for pod in (pod for kind in KINDS for pod in stage_pods(kind, "team-a").values()):
        assert lets_in(rules, operator, pod, layout.TELEMETRY_PORT)
        assert lets_out(rules, operator, pod, layout.TELEMETRY_PORT)
        assert not lets_out(rules, operator, pod, layout.SERVER_PORT)
        for nobody in (STRANGER, Peer("team-a", {"app": "notebook"}), Peer("team-b", pod.labels)):
            assert not lets_in(rules, nobody, pod, layout.TELEMETRY_PORT)


def test_jobs_reach_names_each_other_and_https_and_no_keys_of_the_cloud(kubectl_program: Path) -> None:
    rules = policies(kubectl_program, "overlays/production", "team-a")
    hub, hub6 = Peer("", {}, "203.0.113.7"), Peer("", {}, "2001:db8::7")
    notebook = Peer("team-a", {"app": "notebook"})
    for pod in (pod for kind in KINDS for pod in stage_pods(kind, "team-a").values()):
        assert lets_out(rules, pod, Peer("kube-system", {}), 53)
        assert lets_out(rules, pod, pod, 40000)
        for there in (hub, hub6):
            assert lets_out(rules, pod, there, 443)
            assert not lets_out(rules, pod, there, 80)
        for keys in ("169.254.169.254", "fd00:ec2::254"):
            assert not any(lets_out(rules, pod, Peer("", {}, keys), port) for port in (80, 443))
        assert not lets_out(rules, pod, notebook, 5432)
        assert not lets_out(rules, pod, Peer("team-b", pod.labels), layout.SERVER_PORT)


@every_installation
def test_the_operator_is_asked_for_probes_and_figures_alone(kubectl_program: Path, folder: str) -> None:
    made = _built(kubectl_program, folder)
    operator = operator_pod(made)
    assert lets_in(made, STRANGER, operator, Settings().port)
    assert not lets_in(made, STRANGER, operator, 22)
    dns, anybody = Peer("kube-system", {}), Peer("elsewhere", {})
    assert lets_out(made, operator, dns, 53)
    assert not lets_out(made, operator, anybody, 53)
    assert lets_out(made, operator, anybody, 6443), "the API server, which no label selects"
    assert not lets_out(made, operator, anybody, 80)
