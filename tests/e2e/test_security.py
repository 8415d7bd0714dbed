"""What the operator may do on a real cluster, what its servers tell strangers, and what its namespaces let in."""

import json
from typing import Final

import pytest
from support.installed_operator import ACCOUNT, OVERLAY, SYSTEM, InstalledOperator
from support.kubectl import Json, KubectlError, NamespacedKubectl, kustomize
from support.manifests import MOST_GRANTS, Right, of_kind, rights
from support.on_cluster import OnCluster, holds
from support.tiny_jobs import reinforcement

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CLOSED: Final = {401, 403, 404}
ASK: Final = """
import importlib.util, json, os, pathlib, re, urllib.error, urllib.request
DECORATOR = re.compile(r'@\\w*router\\w*\\.(get|post|put|patch|delete)\\(\\s*"(/[^"]*)"')
sources = pathlib.Path(importlib.util.find_spec("vllm").origin).parent.joinpath("entrypoints").rglob("*.py")
routes = {(method.upper(), path) for source in sources for method, path in DECORATOR.findall(source.read_text())}
routes |= {("GET", path) for path in ("/", "/docs", "/redoc", "/openapi.json", "/metrics")}

def status(method, path, headers):
    url = f"http://{os.environ['POD_IP']}:8000" + re.sub("{.*?}", "any", path)
    request = urllib.request.Request(url, b"{}" if method == "POST" else None, headers, method=method)
    try:
        return urllib.request.urlopen(request, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0

KEYS = ({}, {"Authorization": "Bearer another"})
reached = status("GET", "/health", {}) != 0
wanted = [(method, path, key) for method, path in sorted(routes) for key in KEYS if reached]
asked = [(method, path, status(method, path, key)) for method, path, key in wanted]
print(json.dumps({"reached": reached, "asked": asked}))
"""
"""Every route that vLLM's own source declares, asked without a key and with a wrong one."""


def test_the_operators_account_may_do_what_the_manifest_grants_and_no_more(operator: InstalledOperator) -> None:
    granted = allowed(ACCOUNT) - allowed(f"system:serviceaccount:{SYSTEM}:nobody")
    assert granted == set(rights(of_kind(kustomize(OVERLAY, namespace=SYSTEM), "Role", "ClusterRole")))
    assert len(granted) <= MOST_GRANTS
    assert not [right for right in granted if "*" in "".join(right)]
    assert not [right for right in granted if right[1].startswith("secrets")]


def allowed(account: str) -> set[Right]:
    """What ``kubectl auth can-i --list`` asks for: an account's rights in the operator's own namespace."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": SYSTEM}}
    arguments = ("create", f"--as={account}", "--validate=false", "--filename", "-", "--output", "json")
    answer = json.loads(NamespacedKubectl(SYSTEM).run(*arguments, text=json.dumps(review)))
    rules = [{"apiGroups": [""], "resources": [], "verbs": [], **rule} for rule in answer["status"]["resourceRules"]]
    return set(rights([{"rules": rules}]))


def test_a_rollout_server_answers_nobody_who_lacks_the_key_of_its_run(team: OnCluster) -> None:
    job = team.submit(reinforcement(steps=100_000))
    team.wait_for(lambda: any(holds(pod, "Ready") for pod in job.pods(role="servers")), "a server to be ready")
    (server,) = job.pods(role="servers")
    # From within the server's own pod, because that is where no network policy is in the way.
    found = json.loads(team.kubectl.python(server["metadata"]["name"], ASK, seconds=300))
    assert found["reached"]
    assert len(found["asked"]) > 100
    assert [asked for asked in found["asked"] if asked[2] not in CLOSED] == []


@pytest.mark.parametrize("namespace", ["team", SYSTEM])
def test_nothing_but_restricted_pods_is_let_in(empty: OnCluster, namespace: str) -> None:
    kubectl = empty.kubectl if namespace == "team" else NamespacedKubectl(namespace)
    spec = {"containers": [{"name": "main", "image": "any"}]}
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "free"}, "spec": spec}
    with pytest.raises(KubectlError, match=r"violates PodSecurity .restricted"):
        kubectl.run("create", "--dry-run=server", "--filename", "-", text=json.dumps(pod))
