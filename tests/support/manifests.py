"""What `kubectl kustomize` makes of manifests/, and what its rights and network policies come to."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import yaml
from posttrain_operator.cluster import Json

ROOT: Final = Path(__file__).resolve().parents[2]
MANIFESTS: Final = ROOT / "manifests"
FOLDERS: Final = sorted(str(path.parent.relative_to(MANIFESTS)) for path in MANIFESTS.rglob("kustomization.yaml"))
"""Everything below manifests/ that can be built."""
FILES: Final = sorted(
    path
    for path in (*(ROOT / "examples").rglob("*.yaml"), *MANIFESTS.glob("samples/*.yaml"))
    if path.name != "kustomization.yaml"
)
"""Every example and sample that is applied as it is."""
INSTALLING: Final = ("base", "overlays/argocd", "overlays/kind", "overlays/namespaced", "overlays/production")
"""Those with the operator in them."""
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"

Right = tuple[str, str, str]
"""(API group, resource, verb)."""
MOST_GRANTS: Final = 90
"""Rights that the operator may have."""


def build(kubectl: Path, folder: str) -> list[Json]:
    """The objects that a folder of manifests/ comes to."""
    command = [str(kubectl), "kustomize", str(MANIFESTS / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def of_kind(objects: Sequence[Json], *kinds: str) -> list[Json]:
    return [obj for obj in objects if obj["kind"] in kinds]


def rights(roles: Sequence[Json]) -> list[Right]:
    """What Roles and ClusterRoles grant, one entry a verb of a resource."""
    return [
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def pod_specs(objects: Sequence[Json]) -> Iterator[Json]:
    """The specifications of all pods that the objects lead to."""
    for obj in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        yield obj["spec"]["template"]["spec"]


@dataclass(frozen=True)
class Peer:
    """A pod as network policies see it, or, without a namespace, an address outside of the cluster."""

    namespace: str
    labels: Mapping[str, str]
    address: str = "10.244.1.7"


def lets_in(policies: Sequence[Json], peer: Peer, pod: Peer, port: int) -> bool:
    """Whether a connection may reach a pod; what no policy selects is open."""
    return _allows(policies, "Ingress", pod, peer, port)


def lets_out(policies: Sequence[Json], pod: Peer, peer: Peer, port: int) -> bool:
    """Whether a connection may leave a pod; what no policy selects is open."""
    return _allows(policies, "Egress", pod, peer, port)


def _allows(policies: Sequence[Json], direction: str, pod: Peer, peer: Peer, port: int) -> bool:
    own = [
        policy["spec"]
        for policy in of_kind(policies, "NetworkPolicy")
        if policy["metadata"]["namespace"] == pod.namespace
        and _selects(policy["spec"]["podSelector"], pod.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    rules = [rule for spec in own for rule in spec.get(direction.lower(), [])]
    return not own or any(_admits(rule, direction, pod.namespace, peer, port) for rule in rules)


def _admits(rule: Json, direction: str, namespace: str, peer: Peer, port: int) -> bool:
    peers = rule.get("from" if direction == "Ingress" else "to", [])
    ports = [entry["port"] for entry in rule.get("ports", [])]
    return (not ports or port in ports) and (not peers or any(_matches(entry, namespace, peer) for entry in peers))


def _matches(entry: Json, namespace: str, peer: Peer) -> bool:
    if "ipBlock" in entry:
        return _within(entry["ipBlock"], peer.address)
    assert entry.keys() <= {"namespaceSelector", "podSelector"}
    if "namespaceSelector" in entry:
        there = _selects(entry["namespaceSelector"], {_NAMESPACE_LABEL: peer.namespace})
    else:
        there = peer.namespace == namespace
    return there and _selects(entry.get("podSelector", {}), peer.labels)


def _within(block: Json, address: str) -> bool:
    networks = [ip_network(block["cidr"]), *map(ip_network, block.get("except", []))]
    whole, *left_out = (ip_address(address) in network for network in networks)
    return whole and not any(left_out)


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
