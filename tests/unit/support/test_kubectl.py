"""The end-to-end tests touch clusters that are there to be tried on, and no others."""

import functools
import shlex
from pathlib import Path

import pytest
from support import kubectl
from support.kubectl import KubectlError, NamespacedKubectl, has_kind, unusable

KUBECTL = """#!/bin/sh
# Notes what it is asked to do, and has the context that is written beside it.
echo "$*" >>{folder}/asked
case "$*" in
  "config current-context") cat {folder}/context ;;
  *readyz*) exec cat {folder}/readyz ;;
esac
"""


class FakeKubectl:
    """A program in the place of kubectl, with a cluster that is ready."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = folder / "kubectl"
        self.program.write_text(KUBECTL.format(folder=shlex.quote(str(folder))))
        self.program.chmod(0o755)
        self.ready = folder / "readyz"
        self.ready.touch()

    def use_context(self, name: str) -> None:
        (self._folder / "context").write_text(f"{name}\n")

    def asked(self) -> list[str]:
        """Every command line."""
        return (self._folder / "asked").read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    made = FakeKubectl(tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(kubectl, "PROGRAM", str(made.program))
    monkeypatch.setattr(kubectl, "context", functools.cache(kubectl.context.__wrapped__))
    return made


@pytest.mark.parametrize("name", ["kind-posttrain", "kind-kind", "posttrain", "posttrain-two"])
def test_clusters_for_trials_are_worked_on_without_kubeconfig_too(fake: FakeKubectl, name: str) -> None:
    fake.use_context(name)
    assert unusable() is None


@pytest.mark.parametrize("name", ["production", "kind-", "my-kind-cluster", "posttraining", "not-posttrain", ""])
def test_of_any_other_cluster_nothing_is_asked(fake: FakeKubectl, name: str) -> None:
    fake.use_context(name)
    assert unusable() == f"kubectl's context is {name}, and only kind-* and posttrain* are for tests"
    with pytest.raises(KubectlError, match="only kind-"):
        NamespacedKubectl("team").run("delete", "namespace", "team")
    with pytest.raises(KubectlError, match="only kind-"):
        has_kind("jobs.batch")
    assert set(fake.asked()) == {"config current-context"}


def test_every_command_names_the_context_that_was_looked_at(fake: FakeKubectl) -> None:
    fake.use_context("kind-posttrain")
    assert unusable() is None
    fake.use_context("production")
    team = NamespacedKubectl("team")
    team.run("delete", "namespace", "team")
    team.apply([{"kind": "Namespace"}])
    assert not has_kind("jobs.batch")
    first, *others = fake.asked()
    assert first == "config current-context"
    assert "--context kind-posttrain --namespace team delete namespace team" in others
    assert [line for line in others if not line.startswith("--context kind-posttrain ")] == []


def test_what_is_missing_is_said(fake: FakeKubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "config current-context" in str(unusable()), "there is no context"
    fake.use_context("kind-posttrain")
    fake.ready.unlink()
    assert "--raw /readyz" in str(unusable()), "nothing answers"
    monkeypatch.setattr(kubectl, "PROGRAM", str(fake.program.with_name("none")))
    assert "put kubectl on PATH or name it in KUBECTL" in str(unusable())
