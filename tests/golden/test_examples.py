"""Every manifest below examples/ is one that the operator takes."""

from pathlib import Path

import pytest
import yaml
from posttrain_operator.api.resources import is_ours, parse

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = sorted(path for path in EXAMPLES.rglob("*.y*ml") if path.name != "kustomization.yaml")


def test_there_are_examples() -> None:
    assert len(MANIFESTS) >= 4


@pytest.mark.parametrize("path", MANIFESTS, ids=[str(path.relative_to(EXAMPLES)) for path in MANIFESTS])
def test_an_example_parses(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert {"apiVersion", "kind", "metadata"} <= document.keys()
        if is_ours(document):
            admitted = {"namespace": "team", "uid": "u", **document["metadata"]}
            assert parse({**document, "metadata": admitted}).ref.kind == document["kind"]
