"""What the pages tell people to apply is there."""

import re

from support.release import ROOT

FENCE = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
APPLIED = re.compile(r"^kubectl .*?(?: -f| -k|--from-file=) ?((?:argocd|crds|examples|manifests)\S*)", re.MULTILINE)


def test_every_applied_path_is_there() -> None:
    found = {
        (page.name, path)
        for page in (ROOT / "docs").glob("*.md")
        for block in FENCE.findall(page.read_text("utf-8"))
        for path in APPLIED.findall(block)
    }
    assert {path for _, path in found} >= {"crds/", "argocd/argocd-cm.yaml", "manifests/overlays/kind"}
    assert not [(page, path) for page, path in found if not (ROOT / path).exists()]
