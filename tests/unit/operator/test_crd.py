"""The committed CustomResourceDefinitions: current, and what `kubectl` needs to show."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from posttrain_operator.api.crd import HEADER, crd, main, render
from posttrain_operator.api.resources import KINDS, Kind
from posttrain_operator.api.status import Status

COMMITTED = Path(__file__).parents[3] / "crds"
WIDE = ["ATTEMPTS", "ARTIFACT", "MESSAGE"]

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def version(kind: Kind) -> dict[str, Any]:
    """The only version of a kind's definition."""
    (only,) = crd(kind)["spec"]["versions"]
    return dict(only)


def spec_schema(kind: Kind) -> dict[str, Any]:
    return dict(version(kind)["schema"]["openAPIV3Schema"]["properties"]["spec"])


def test_the_committed_files_are_what_the_types_say(tmp_path: Path) -> None:
    main(tmp_path)

    def texts(folder: Path) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}

    assert texts(COMMITTED) == texts(tmp_path), "run `make crds`"


@every_kind
def test_a_file_starts_with_a_word_about_its_origin_and_reads_back_as_the_definition(kind: Kind) -> None:
    text = render(kind)
    assert text.startswith(HEADER)
    assert yaml.safe_load(text) == crd(kind)
    assert "&id" not in text


@every_kind
def test_a_definition_is_namespaced_and_has_its_names(kind: Kind) -> None:
    definition = crd(kind)
    spec = definition["spec"]
    assert definition["apiVersion"] == "apiextensions.k8s.io/v1"
    assert definition["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert (spec["group"], spec["scope"]) == ("posttrain.dev", "Namespaced")
    assert spec["names"]["categories"] == ["posttrain"]
    assert spec["names"]["singular"] == kind.name.lower()


def test_short_names_are_those_of_the_documentation() -> None:
    short = {kind.name: crd(kind)["spec"]["names"]["shortNames"] for kind in KINDS.values()}
    assert short == {"FilterJob": ["fj"], "FineTuneJob": ["ftj"], "RLJob": ["rlj"], "UploadJob": ["ulj"]}


@every_kind
def test_status_is_a_subresource(kind: Kind) -> None:
    only = version(kind)
    assert (only["name"], only["served"], only["storage"]) == ("v1alpha1", True, True)
    assert only["subresources"] == {"status": {}}


@every_kind
def test_the_spec_is_the_contract_and_run(kind: Kind) -> None:
    fields = {field.alias for field in kind.spec.model_fields.values()}
    assert set(spec_schema(kind)["properties"]) == {*fields, "run"}
    assert "run" not in spec_schema(kind)["required"]


@every_kind
def test_every_field_but_run_is_immutable(kind: Kind) -> None:
    rules = [rule for rule in spec_schema(kind)["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    fixed = {rule["message"].split()[0] for rule in rules}
    assert fixed == {f"spec.{field.alias}" for field in kind.spec.model_fields.values()}


@every_kind
def test_printer_columns_point_at_fields_that_exist(kind: Kind) -> None:
    columns = {column["name"]: column for column in version(kind)["additionalPrinterColumns"]}
    assert list(columns) == ["PHASE", "PROGRESS", "ETA", "METRIC", "REASON", "AGE", *WIDE]
    assert [name for name, column in columns.items() if column.get("priority")] == WIDE
    root = version(kind)["schema"]["openAPIV3Schema"]
    for name, column in columns.items():
        if name != "AGE":
            assert column["type"] == type_at(root, column["jsonPath"]), name


def type_at(schema: dict[str, Any], json_path: str) -> str:
    """The type of the field that a printer column shows."""
    for part in re.sub(r"\[.*?\]", "[]", json_path.removeprefix(".")).split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return str(schema["type"])


def test_a_status_of_the_operator_fits_the_status_schema() -> None:
    schema = version(KINDS["RLJob"])["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert set(schema["properties"]) == {field.alias for field in Status.model_fields.values()}
    assert schema["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert schema["properties"]["attempts"]["x-kubernetes-list-map-keys"] == ["number"]


@every_kind
def test_bounds_are_numbers_that_a_double_holds(kind: Kind) -> None:
    """The API server reads them as doubles, and refuses every object under a bound that is no integer any more."""
    found = re.findall(r"^ *(?:minimum|maximum): (-?\d+)$", render(kind), re.MULTILINE)
    assert found
    assert not [bound for bound in found if abs(int(bound)) > 2**53]
