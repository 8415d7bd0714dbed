"""Hosted CI: the linters of `make workflows` refuse mistakes, and what they cannot see is right too."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from posttrain_operator.settings import STAGES

ROOT: Final = Path(__file__).parents[3]
WORKFLOWS: Final = sorted((ROOT / ".github/workflows").glob("*.yaml"))
BIN: Final = Path(sys.executable).parent
KIND: Final = ROOT / "hack/kind"

EXPRESSION: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
OUTPUT: Final = re.compile(r"\bsteps\.([\w-]+)\.|\bneeds\.([\w-]+)\.|\bmatrix\.([\w-]+)")
PINNED: Final = re.compile(r"^\s*(?:- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")

GOOD: Final = """\
name: good
on:
  push:
    branches: [main]
permissions: {}
concurrency:
  group: good
  cancel-in-progress: false
jobs:
  one:
    name: one
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - run: make help
"""

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text("utf-8"))["jobs"])


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def unknown_names(job: dict[str, Any]) -> set[str]:
    """What the expressions of a job refer to and nobody says: steps that come later, jobs that it needs not."""
    known = {*job.get("strategy", {}).get("matrix", {}), *_list(job.get("needs", []))}
    found = _names(str({key: value for key, value in job.items() if key != "steps"})) - known
    for step in job["steps"]:
        found |= _names(str(step)) - known
        known |= {step["id"]} if "id" in step else set()
    return found


def _names(text: str) -> set[str]:
    inside = [match for expression in EXPRESSION.findall(text) for match in OUTPUT.findall(expression)]
    return {name for match in inside for name in match if name}


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@every_workflow
def test_every_action_is_pinned_to_a_commit_and_says_its_version(path: Path) -> None:
    uses = [line for line in path.read_text("utf-8").splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not PINNED.match(line)] == []


def test_an_action_has_one_version_everywhere() -> None:
    pins = {match for path in WORKFLOWS for match in re.findall(r"uses: (\S+)@(\S+)", path.read_text("utf-8"))}
    assert len({name for name, _ in pins}) == len(pins)


@every_workflow
def test_what_a_pull_request_brings_gets_no_secret_and_may_write_nothing(path: Path) -> None:
    text = path.read_text("utf-8")
    trusted = path.name == "release.yaml"
    assert "pull_request_target" not in text
    assert ("secrets." in text) is trusted
    assert ("pull_request:" in text) is not trusted
    document = yaml.safe_load(text)
    assert document["permissions"] == {}
    granted = {right for job in document["jobs"].values() for right in job["permissions"].items()}
    assert ("contents", "read") in granted
    assert trusted or granted == {("contents", "read")}


@every_workflow
def test_what_expressions_name_is_there(path: Path) -> None:
    found = jobs(path)
    for job in found.values():
        assert unknown_names(job) == set()
        assert {*_list(job.get("needs", []))} <= found.keys()
    text = path.read_text("utf-8")
    assert text.count("${{") == len(EXPRESSION.findall(text))


@every_workflow
def test_the_shell_takes_every_command_and_the_checkout_has_what_they_start(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    for command in commands:
        done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, timeout=10, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(re.findall(r"\bmake ([a-z0-9-]+)", command)) <= targets
        assert all((ROOT / name).is_file() for name in re.findall(r"(?<!\S)((?:hack|\.ci)/[\w./-]+)", command))


def test_a_release_has_the_operator_and_every_stage() -> None:
    release = jobs(ROOT / ".github/workflows/release.yaml")
    assert set(release["images"]["strategy"]["matrix"]["image"]) == {"operator", *STAGES}


def test_an_image_is_tried_before_it_gets_a_tag_or_a_place_in_the_release() -> None:
    found = jobs(ROOT / ".github/workflows/release.yaml")["images"]["steps"]
    (build,) = [step["with"] for step in found if step.get("id") == "build"]
    assert "push-by-digest=true" in build["outputs"]
    assert "tags" not in build
    assert set(re.findall(r"^(\w+)=", build["build-args"], re.MULTILINE)) == {"STAGE", "VERSION", "REVISION", "SOURCE"}
    (last,) = [step["run"].splitlines() for step in found if "hack/images.py" in step.get("run", "")]
    words = [next(word for word in ("prune", "pull", "images.py", "--tag", "digests") if word in line) for line in last]
    assert words == ["prune", "pull", "images.py", "--tag", "digests"]


def test_what_a_trial_cluster_is_made_of_is_pinned_by_content() -> None:
    """By commit and by digest. The images that the two commits name are their projects' releases, by tag."""
    remote = [
        line for path in KIND.rglob("*.yaml") for line in path.read_text("utf-8").splitlines() if "https://" in line
    ]
    assert len(remote) == 2
    assert [line for line in remote if not re.search(r"\?ref=[0-9a-f]{40}$", line)] == []
    (node,) = yaml.safe_load((KIND / "cluster.yaml").read_text("utf-8"))["nodes"]
    assert re.fullmatch(r"kindest/node:v1\.36\.\d+@sha256:[0-9a-f]{64}", node["image"])


def test_a_trial_cluster_has_the_training_operator_of_the_other_tests() -> None:
    """The commit is that of the version which hack/tools pins by checksum."""
    pinned = (ROOT / "hack/tools/training-operator/go.mod").read_text("utf-8")
    found = re.search(r"github.com/kubeflow/training-operator (v\S+)", pinned)
    assert found is not None
    assert f"training operator {found[1]}," in (KIND / "training-operator/kustomization.yaml").read_text("utf-8")


def lint(folder: Path) -> list[str]:
    """What the commands of `make workflows` say of a checkout's workflows, for those that fail."""
    recipe = re.search(r"^workflows: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert recipe is not None
    said = []
    for line in recipe[1].splitlines():
        command = ["bash", "-c", line.strip().replace("$(BIN)", str(BIN))]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            said.append(done.stdout + done.stderr)
    return said


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("timeout-minutes", "timeout-minutez", "timeout-minutez"),
        ("    timeout-minutes: 5\n", "", "timeout-minutes"),
        ("runs-on", "needs", "runs-on"),
        ("- run: make help", "- run: make help\n        uses: actions/checkout@main", "unpinned-uses"),
        ("make help", "echo ${{ github.event.head_commit.message }}", "template-injection"),
        ("push:\n    branches: [main]", "pull_request_target:", "dangerous-triggers"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("on:\n", "on: [\n", "bad.yaml"),
    ],
)
def test_the_linters_refuse_a_broken_workflow(tmp_path: Path, old: str, new: str, told: str) -> None:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text(GOOD, "utf-8")
    assert lint(tmp_path) == []
    assert old in GOOD
    (folder / "bad.yaml").write_text(GOOD.replace(old, new, 1), "utf-8")
    assert told in "".join(lint(tmp_path))
