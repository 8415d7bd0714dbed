"""The parts of a README.md that models and repositories have alike."""

from posttrain_contract.artifact import InputEntry
from posttrain_runtime import cards


def test_lineage_names_place_and_digest_and_no_folder_of_somebodys_disk() -> None:
    inputs = {
        "model": InputEntry(uri="pvc://models/base", digest="a" * 64),
        "dataset": InputEntry(uri="file:///srv/ann/rows.jsonl"),
    }
    assert cards.lineage(inputs) == [
        "## Made from",
        "",
        "| what | where | SHA-256 of the artifact |",
        "| --- | --- | --- |",
        f"| model | `pvc://models/base` | `{'a' * 64}` |",
        "| dataset | `rows.jsonl`, a local file |  |",
        "",
    ]


def test_a_cell_stays_in_its_row_and_column() -> None:
    (*_, row, _) = cards.table("Training", ("setting", "value"), [("modules", "a|b\nc")])
    assert row == r"| modules | a\|b c |"


def test_a_table_without_rows_is_no_section() -> None:
    assert cards.figures({}) == []


def test_sections_are_found_by_their_headings() -> None:
    text = "---\ntags: []\n---\n\n# Name\n\nWords.\n\n## One\n\n### Part\n\n1\n\n## Two\n2\n"
    assert cards.sections(text) == {"One": "## One\n\n### Part\n\n1", "Two": "## Two\n2"}
    assert cards.sections("no headings") == {}
