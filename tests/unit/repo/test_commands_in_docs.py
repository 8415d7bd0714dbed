"""What the pages tell people to apply is there."""

import re

from support.release import ROOT

FENCE = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
APPLIED = re.compile(r"^kubectl .*?(?: -f| -k|--from-file=) ?((?:argocd|crds|examples|manifests)\S*)", re.MULTILINE)


def test_every_applied_path_is_there() -> None:
    found = {
        (page.name, path)
        for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/*/README.md")]
        for block in FENCE.findall(page.read_text("utf-8"))
        for path in APPLIED.findall(block)
    }
    assert {path for _, path in found} >= {"crds/", "argocd/argocd-cm.yaml", "manifests/overlays/kind"}
    assert not [(page, path) for page, path in found if not (ROOT / path).exists()]


def test_from_nothing_to_a_published_model_are_at_most_six_commands_on_both_pages() -> None:
    commands = block("docs/install.md", "make cluster\n")
    assert len(commands) <= 6
    assert block("examples/quickstart/README.md", "kubectl apply") == commands[1:]


def test_jobs_are_applied_when_their_inputs_are_written() -> None:
    commands = block("docs/install.md", "make cluster\n")
    written = next(index for index, command in enumerate(commands) if command.endswith(" job/quickstart-inputs"))
    assert "kubectl -n team wait --for=condition=Complete " in commands[written]
    assert "kubectl -n team apply -f examples/quickstart/" in commands[written:]


def block(page: str, start: str) -> list[str]:
    """The commands of the one block of a page that starts like this."""
    blocks: list[str] = FENCE.findall((ROOT / page).read_text("utf-8"))
    (found,) = [text for text in blocks if text.startswith(start)]
    return found.splitlines()
