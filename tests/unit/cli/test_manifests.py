"""What ``posttrain validate`` says of broken manifests: every error at once, with its place and the remedy."""

from pathlib import Path

import pytest
from posttrain.manifests import Checked, check, find_files

FILTER = """\
apiVersion: posttrain.dev/v1alpha1
kind: FilterJob
metadata: {name: hard-problems}
spec:
  source: {uri: pvc://posttrain/problems}
  byLabel: {column: pass_rate, max: 0.7}
"""
TUNE = """\
apiVersion: posttrain.dev/v1alpha1
kind: FineTuneJob
metadata: {name: sft}
spec:
  model: {uri: pvc://posttrain/base}
  dataset: {from: FilterJob/hard-problems}
"""
REWARD = """\
apiVersion: posttrain.dev/v1alpha1
kind: RLJob
metadata: {name: grpo}
spec:
  model: {from: FineTuneJob/sft}
  dataset: {from: FilterJob/hard-problems}
  rewards: [{name: exact-match}]
"""
PIPELINE = f"{FILTER}---\n{TUNE}---\n{REWARD}"
NAME_RULE = (
    "must be a DNS label, since pods and services are named after it: it starts with a-z, ends with a-z or 0-9, "
    "has only a-z, 0-9 and - between, and at most 63 characters"
)


def check_text(text: str) -> Checked:
    return check(["-"], read_stdin=text.encode)


def errors(text: str) -> list[str]:
    return [str(finding).removeprefix("<stdin>:") for finding in check_text(text).findings]


def test_valid_manifests_have_no_findings_and_become_objects() -> None:
    checked = check_text(PIPELINE)
    assert not checked.findings
    assert [obj["kind"] for obj in checked.objects] == ["FilterJob", "FineTuneJob", "RLJob"]
    assert checked.objects[0]["metadata"] == {"name": "hard-problems", "namespace": "default"}


def test_a_status_in_a_manifest_is_left_out() -> None:
    checked = check_text(f"{FILTER}status: {{phase: Succeeded}}\n")
    assert not checked.findings
    assert "status" not in checked.objects[0]


FIELDS = [
    (
        TUNE.replace("dataset: {from: FilterJob/hard-problems}", "dataset: {uri: pvc://a/b}")
        + "  training:\n    learningRat: 2e-4\n",
        "8:5: spec.training.learningRat: unknown field; did you mean learningRate?",
    ),
    (
        FILTER + "  training: {}\n",
        "7:3: spec.training: unknown field; allowed: source, byLabel, columns, output, parallelism, run",
    ),
    (
        FILTER + "  rowsPerShard: 5\n",
        "7:3: spec.rowsPerShard: unknown field here; did you mean spec.output.rowsPerShard?",
    ),
    (FILTER + "  run: {retrys: 2}\n", "7:9: spec.run.retrys: unknown field; did you mean retries?"),
    (FILTER.replace("spec:", "spce:"), "4:1: spce: unknown field; did you mean spec?"),
    (
        FILTER.replace("  byLabel: {column: pass_rate, max: 0.7}\n", ""),
        "4:1: spec.byLabel: required field is missing: Keep rows by a numeric label, such as a pass rate",
    ),
    (
        FILTER.replace("{column: pass_rate, max: 0.7}", "{column: pass_rate}"),
        "6:3: spec.byLabel: set min, max or both",
    ),
    (
        FILTER.replace("{uri: pvc", "{from: FilterJob/x, uri: pvc"),
        "5:3: spec.source: set exactly one of from and uri",
    ),
    (FILTER.replace("max: 0.7", "max: high"), "6:32: spec.byLabel.max: input should be a valid number"),
    (FILTER.replace("{column: pass_rate, max: 0.7}", "pass_rate"), "6:3: spec.byLabel: must be a mapping of fields"),
    (FILTER + "  parallelism: 0\n", "7:3: spec.parallelism: input should be greater than or equal to 1, found 0"),
    (
        FILTER.replace("pvc://posttrain/problems", "problems.jsonl"),
        "5:12: spec.source.uri: string should match pattern",
    ),
    (FILTER.replace("column: pass_rate", "column: &c [*c]"), "6:21: this value contains itself through an alias"),
    (
        REWARD.replace("exact-match", "exact_match")
        .replace("from: FineTuneJob/sft", "uri: pvc://a/b")
        .replace("from: FilterJob/hard-problems", "uri: pvc://a/b"),
        "7:14: spec.rewards[0].name: input should be 'exact-match', found 'exact_match'; did you mean exact-match?",
    ),
]


@pytest.mark.parametrize(("text", "error"), FIELDS)
def test_a_wrong_field_is_named_with_its_place_and_what_is_allowed(text: str, error: str) -> None:
    assert any(found.startswith(error) for found in errors(text)), errors(text)


def test_a_value_that_does_not_fit_a_pattern_is_explained() -> None:
    (found,) = errors(FILTER.replace("pvc://posttrain/problems", "problems.jsonl"))
    assert "found 'problems.jsonl'; it means: pvc://CLAIM/PATH for a folder or file" in found
    assert "spec.source.uri: string should match pattern, found" in found, "the pattern itself would only confuse"


OBJECTS = [
    ("- 1\n", ["1:1: expected an object with apiVersion, kind, metadata and spec, found a list"]),
    ("just text\n", ["1:1: expected an object with apiVersion, kind, metadata and spec, found the text 'just text'"]),
    (
        "metadata: {name: x}\n",
        [
            "1:1: apiVersion: required field is missing; allowed: posttrain.dev/v1alpha1",
            "1:1: kind: required field is missing; allowed: FilterJob, FineTuneJob, RLJob, UploadJob",
        ],
    ),
    (
        FILTER.replace("v1alpha1", "v1alpha"),
        [
            (
                "1:1: apiVersion: unknown apiVersion 'posttrain.dev/v1alpha'; allowed: posttrain.dev/v1alpha1; "
                "did you mean posttrain.dev/v1alpha1?"
            )
        ],
    ),
    (
        FILTER.replace("posttrain.dev", "postrain.dev"),
        [
            (
                "1:1: apiVersion: unknown apiVersion 'postrain.dev/v1alpha1'; allowed: posttrain.dev/v1alpha1; "
                "did you mean posttrain.dev/v1alpha1?"
            )
        ],
    ),
    (
        FILTER.replace("FilterJob", "Filterjob"),
        [
            (
                "2:1: kind: unknown kind 'Filterjob'; allowed: FilterJob, FineTuneJob, RLJob, UploadJob; "
                "did you mean FilterJob?"
            )
        ],
    ),
    (
        FILTER.replace("kind: FilterJob", "kind: [FilterJob]"),
        [
            (
                "2:1: kind: unknown kind ['FilterJob']; allowed: FilterJob, FineTuneJob, RLJob, UploadJob; "
                "did you mean FilterJob?"
            )
        ],
    ),
    (FILTER.replace("{name: hard-problems}", "{}"), ["3:1: metadata.name: required field is missing"]),
    (
        FILTER.replace("metadata: {name: hard-problems}\n", ""),
        ["1:1: metadata: expected a mapping with at least a name"],
    ),
    (
        FILTER.replace("{name: hard-problems}", "hard"),
        ["3:1: metadata: expected a mapping with at least a name, found the text 'hard'"],
    ),
    (FILTER.replace("hard-problems", "7"), ["3:12: metadata.name: must be text, found 7"]),
    (FILTER.replace("hard-problems", "Hard_Problems"), [f"3:12: metadata.name: {NAME_RULE}, found 'Hard_Problems'"]),
    (FILTER.replace("hard-problems", "a" * 64), [f"3:12: metadata.name: {NAME_RULE}, found '{'a' * 64}'"]),
    (
        FILTER.replace("hard-problems", "hard-problems, namespace: Team"),
        ["3:33: metadata.namespace: must be 1 to 63 of a-z, 0-9 and -, and neither start nor end with -, found 'Team'"],
    ),
    (
        FILTER.replace("hard-problems", "hard-problems, labels: {team: 1}"),
        ["3:42: metadata.labels.team: must be text; put 1 in quotation marks"],
    ),
    (
        FILTER.replace("hard-problems", "hard-problems, namspace: x"),
        ["3:33: metadata.namspace: unknown field; did you mean namespace?"],
    ),
    (FILTER.split("spec:", maxsplit=1)[0], ["1:1: spec: required field is missing"]),
    (FILTER.split("spec:", maxsplit=1)[0] + "spec: 5\n", ["4:1: spec: must be a mapping of fields, found 5"]),
]


@pytest.mark.parametrize(("text", "expected"), OBJECTS)
def test_a_wrong_object_is_explained(text: str, expected: list[str]) -> None:
    assert errors(text) == expected


REFERENCES = [
    (
        f"{FILTER}---\n{TUNE.replace('hard-problems', 'hard-problem')}",
        (
            "13:13: spec.dataset.from: FilterJob/hard-problem does not exist among the given objects; "
            "there is FilterJob/hard-problems; did you mean FilterJob/hard-problems?"
        ),
    ),
    (
        TUNE,
        (
            "6:13: spec.dataset.from: FilterJob/hard-problems does not exist among the given objects; "
            "there is none to read from"
        ),
    ),
    (
        f"{FILTER.replace('problems}', 'problems, namespace: other}', 1)}---\n{TUNE}",
        (
            "13:13: spec.dataset.from: FilterJob/hard-problems does not exist among the given objects; "
            "one is in namespace other, but an object reads only from its own, which is default"
        ),
    ),
    (
        f"{FILTER}---\n{TUNE.replace('FilterJob/hard', 'FilterJobs/hard')}",
        (
            "13:13: spec.dataset.from: must name the dataset of a FilterJob, found 'FilterJobs/hard-problems'; "
            "did you mean FilterJob/hard-problems?"
        ),
    ),
    (
        f"{FILTER}---\n{TUNE.replace('FilterJob/hard-problems', 'hard-problems')}",
        (
            "13:13: spec.dataset.from: must be KIND/NAME, where KIND is FilterJob, found 'hard-problems'; "
            "did you mean FilterJob/hard-problems?"
        ),
    ),
    (
        f"{FILTER}---\n{TUNE.replace('uri: pvc://posttrain/base', 'from: FilterJob/hard-problems')}",
        "12:11: spec.model.from: must name the model of a FineTuneJob or RLJob, found 'FilterJob/hard-problems'",
    ),
    (
        f"{FILTER}---\n{TUNE.replace('uri: pvc://posttrain/base', 'from: FineTuneJob/sft')}",
        "12:11: spec.model.from: reads from itself: FineTuneJob/sft -> FineTuneJob/sft",
    ),
    (
        PIPELINE.replace("uri: pvc://posttrain/base", "from: RLJob/grpo"),
        "19:11: spec.model.from: reads from itself: FineTuneJob/sft -> RLJob/grpo -> FineTuneJob/sft",
    ),
    (
        f"{FILTER}---\n{FILTER}",
        "10:12: metadata.name: FilterJob/hard-problems is here twice, first at <stdin>:3:12; rename or remove one",
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFERENCES)
def test_objects_must_fit_together(text: str, expected: str) -> None:
    assert errors(text) == [expected]


def test_references_of_an_object_that_is_broken_elsewhere_are_checked_too() -> None:
    found = errors(TUNE + "  trainin: {}\n")
    assert [line.split(": ")[1] for line in found] == ["spec.dataset.from", "spec.trainin"]


def test_a_missing_object_may_be_in_what_could_not_be_read() -> None:
    found = errors(f"{TUNE}---\na: [\n")
    assert found[0].endswith("there is none to read from; it may be in the document that could not be read")


def test_a_reference_across_namespaces_of_the_same_name_is_fine_where_each_has_its_own() -> None:
    other = PIPELINE.replace("problems}", "problems, namespace: other}", 1).replace("sft}", "sft, namespace: other}", 1)
    other = other.replace("grpo}", "grpo, namespace: other}", 1)
    assert errors(f"{PIPELINE}---\n{other}") == []


def test_a_long_pipeline_is_no_circle() -> None:
    steps = [FILTER] + [
        TUNE.replace("sft", f"sft-{n}").replace("uri: pvc://posttrain/base", f"from: FineTuneJob/sft-{n - 1}")
        if n
        else TUNE.replace("sft", "sft-0")
        for n in range(1200)
    ]
    assert errors("---\n".join(steps)) == []


def test_every_error_of_every_file_is_found_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(FILTER.replace("max: 0.7", "max: high").replace("hard-problems", "Hard"))
    (tmp_path / "a.yaml").write_text("a: [\n")
    (tmp_path / "c.yml").write_text(TUNE + "  epochs: 3\n")
    files = find_files([str(tmp_path)])
    found = check(files, read_stdin=bytes).findings
    assert [(Path(f.position.file).name, f.position.line, f.field) for f in found] == [
        ("a.yaml", 2, ""),
        ("b.yaml", 3, "metadata.name"),
        ("b.yaml", 6, "spec.byLabel.max"),
        ("c.yml", 6, "spec.dataset.from"),
        ("c.yml", 7, "spec.epochs"),
    ]


def test_objects_of_others_are_skipped_with_a_note() -> None:
    checked = check_text(
        f"{FILTER}---\napiVersion: v1\nkind: ConfigMap\n---\napiVersion: trainer.dev/v1\nkind: RLJob\n"
    )
    assert not checked.findings
    assert len(checked.objects) == 1
    assert checked.notes == (
        "<stdin>:8:1: skipped v1 ConfigMap, which is not of posttrain.dev",
        "<stdin>:11:1: skipped trainer.dev/v1 RLJob, which is not of posttrain.dev",
    )


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    (found,) = check([str(path)], read_stdin=bytes).findings
    assert str(found) == f"{path}:2:4: not UTF-8 text; save the file as UTF-8"


def test_folders_are_searched_in_order_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "sub/c.yaml", ".hidden/d.yaml", ".e.yaml", "f.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    found = [str(Path(file).relative_to(tmp_path)) for file in find_files([str(tmp_path), str(tmp_path / "b.yaml")])]
    assert found == ["a.yml", "b.yaml", "sub/c.yaml"]
