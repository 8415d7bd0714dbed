"""The command line from outside: streams, exit codes, what it imports and how fast it is."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from posttrain import __version__
from posttrain.commands import run
from posttrain.local.session import InterruptedRunError
from posttrain.local.workspace import LocalOptions, WorkspaceBusyError
from posttrain.main import cli

Json = dict[str, Any]
Watch = Callable[[Sequence[Json]], None]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
VALID = """\
apiVersion: posttrain.dev/v1alpha1
kind: FilterJob
metadata: {name: hard}
spec:
  source: {uri: pvc://posttrain/problems}
  byLabel: {column: pass_rate, max: 0.7}
"""


def invoke(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, list(arguments), input=stdin, catch_exceptions=False)


def fake_run(
    monkeypatch: pytest.MonkeyPatch, ended: Sequence[Json], *, began: Sequence[Json] = ()
) -> list[LocalOptions]:
    """Replaces the executor with one that shows how a run began and ended; returns the options it is given."""
    calls: list[LocalOptions] = []

    async def run_local(
        objects: Sequence[Json], options: LocalOptions, *, watch: Watch, say: Callable[[str], None]
    ) -> tuple[Json, ...]:
        say(f"objects: {len(objects)}")
        options.workspace.mkdir(exist_ok=True)
        calls.append(options)
        for state in (began, ended):
            if state:
                watch(state)
        return tuple(ended)

    monkeypatch.setattr(run, "run_local", run_local)
    return calls


def fake_end(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Replaces the executor with one that ends with an exception."""

    async def run_local(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(run, "run_local", run_local)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A valid manifest in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(VALID)
    return "x.yaml"


def test_validate_of_valid_manifests() -> None:
    result = invoke("validate", "-", stdin=VALID)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 object is valid\n")


def test_validate_shows_errors_on_standard_output_and_their_number_on_the_other() -> None:
    result = invoke("validate", "-", stdin=VALID.replace("max", "mx").replace("hard", "Hard"))
    assert result.exit_code == 3
    assert [line.split(": ")[:2] for line in result.stdout.splitlines()] == [
        ["<stdin>:3:12", "metadata.name"],
        ["<stdin>:6:32", "spec.byLabel.mx"],
    ]
    assert result.stderr == "2 errors\n"


def test_validate_for_machines() -> None:
    result = invoke("validate", "--json", "-", stdin=f"{VALID}  run: {{retrys: 1}}\n---\napiVersion: v1\nkind: Pod\n")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {
        "valid": False,
        "objects": [{"kind": "FilterJob", "namespace": "default", "name": "hard"}],
        "errors": [
            {
                "file": "<stdin>",
                "line": 7,
                "column": 9,
                "field": "spec.run.retrys",
                "message": "unknown field; did you mean retries?",
            }
        ],
        "skipped": ["<stdin>:9:1: skipped v1 Pod, which is not of posttrain.dev"],
    }
    valid = invoke("validate", "--json", "-", stdin=VALID)
    assert (valid.exit_code, json.loads(valid.stdout)["valid"]) == (0, True)


@pytest.mark.parametrize("command", ["validate", "run"])
def test_nothing_to_work_on_is_wrong_usage(command: str, tmp_path: Path) -> None:
    assert invoke(command).exit_code == 2
    assert invoke(command, str(tmp_path / "missing.yaml")).exit_code == 2
    empty = invoke(command, str(tmp_path))
    assert (empty.exit_code, f"there is no .yaml or .yml file in {tmp_path}" in empty.stderr) == (2, True)
    foreign = invoke(command, "-", stdin="apiVersion: v1\nkind: Pod\n")
    assert (foreign.exit_code, "there is no object of posttrain.dev in -" in foreign.stderr) == (2, True)


def test_validate_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom posttrain.main import cli\n"
        f"code = cli(['validate', {str(EXAMPLES / 'quickstart')!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'trl', 'vllm', 'datasets', 'pyarrow', 'asyncio', 'rich', 'jinja2'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or code or 0)\n"
    )
    earlier = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = earlier.ru_utime + earlier.ru_stime
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0
    assert result.stderr.endswith("\n4 objects are valid\n"), "the rest are notes on objects of other groups"
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert spent.ru_utime + spent.ru_stime - before < 1, "seconds of processor time, whatever else the machine does"


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom posttrain.main import cli\ncli(['--help'], standalone_mode=False)\n"
        "sys.exit(','.join(sorted({'pydantic', 'ruamel', 'posttrain.commands.run'} & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert "validate" in result.stdout


def test_version_and_unknown_command() -> None:
    assert invoke("--version").stdout == f"posttrain {__version__}\n"
    assert invoke("trian").exit_code == 2


def test_run_of_an_invalid_manifest_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_run(monkeypatch, [])
    result = invoke("run", "-", stdin=VALID.replace("max", "mxx: 1, max"))
    assert (result.exit_code, result.stdout, calls) == (3, "", [])
    assert "<stdin>:6:32: spec.byLabel.mxx: unknown field; did you mean max?" in result.stderr


def test_run_prints_the_table_and_writes_the_report(
    monkeypatch: pytest.MonkeyPatch, manifest: str, pipeline: list[Json], make_object: Callable[..., Json]
) -> None:
    fake_run(monkeypatch, pipeline, began=[make_object("FilterJob/hard", "Pending")])
    result = invoke("run", manifest)
    assert result.exit_code == 0
    assert "FilterJob/hard   Succeeded  1m 15s  1,200 of 3,000" in result.stdout
    assert re.search(r"Report +\.posttrain/report\.html\n$", result.stdout)
    assert Path(".posttrain/report.html").is_file()
    assert "FineTuneJob/sft  Succeeded" in result.stderr
    assert "nothing to do" not in result.stderr


def test_run_of_a_finished_pipeline_says_that_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, manifest: str, pipeline: list[Json]
) -> None:
    fake_run(monkeypatch, pipeline)
    result = invoke("run", manifest)
    assert result.exit_code == 0
    assert "nothing to do: every artifact is published already" in result.stderr
    assert "Held-out exact match" in result.stdout


def test_run_explains_what_failed_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, manifest: str, make_object: Callable[..., Json]
) -> None:
    failed = make_object("FilterJob/hard", "Failed", reason="MissingColumn", message="there is no column pass_rate")
    logs = LocalOptions().logs(failed)
    logs.mkdir(parents=True)
    (logs / "hard-filter-1-0.log").write_text("reading\nthere is no column pass_rate\n")
    fake_run(monkeypatch, [failed])
    result = invoke("run", manifest)
    assert result.exit_code == 1
    assert "FilterJob/hard  Failed" in result.stdout
    assert "FilterJob/hard failed: MissingColumn: there is no column pass_rate" in result.stderr
    assert "  | reading\n  | there is no column pass_rate\n" in result.stderr
    assert "hint: mend the cause and run the same command again" in result.stderr


@pytest.mark.parametrize("error", [InterruptedRunError(), KeyboardInterrupt()])
def test_an_interrupted_run_exits_with_130_and_says_how_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, manifest: str, error: BaseException
) -> None:
    fake_end(monkeypatch, error)
    result = invoke("run", "--json", manifest)
    assert result.exit_code == 130
    assert "the same command goes on from the last checkpoints" in result.stderr
    assert json.loads(result.stdout) == {"outcome": "Interrupted"}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (WorkspaceBusyError("another `posttrain run` works in /x"), "another `posttrain run` works in /x"),
        (PermissionError(13, "Permission denied", "/x/lock"), "workspace .posttrain: Permission denied: /x/lock"),
    ],
)
def test_a_workspace_that_cannot_be_used_is_explained(
    monkeypatch: pytest.MonkeyPatch, manifest: str, error: Exception, sentence: str
) -> None:
    fake_end(monkeypatch, error)
    result = invoke("run", manifest)
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")


def test_a_report_that_cannot_be_written_does_not_spoil_the_run(
    monkeypatch: pytest.MonkeyPatch, manifest: str, pipeline: list[Json]
) -> None:
    fake_run(monkeypatch, pipeline)
    Path(".posttrain/report.html").mkdir(parents=True)
    result = invoke("run", manifest)
    assert result.exit_code == 0
    assert "warning: no report at .posttrain/report.html: Is a directory" in result.stderr
    assert "Report" not in result.stdout


def test_run_for_machines(monkeypatch: pytest.MonkeyPatch, manifest: str, pipeline: list[Json]) -> None:
    fake_run(monkeypatch, pipeline)
    answer = json.loads(invoke("run", "--json", manifest).stdout)
    assert (answer["outcome"], len(answer["objects"])) == ("Succeeded", 3)
    assert Path(answer["report"]).name == "report.html"


def test_options_reach_the_executor(
    monkeypatch: pytest.MonkeyPatch, manifest: str, pipeline: list[Json], tmp_path: Path
) -> None:
    calls = fake_run(monkeypatch, pipeline)
    claim = tmp_path / "data"
    claim.mkdir()
    invoke("run", manifest, "--workspace", "w", "--claim", f"posttrain={claim}", "--hub", "http://hub.test")
    monkeypatch.setenv("POSTTRAIN_HUB_ENDPOINT", "http://other.test")
    invoke("run", manifest)
    assert calls == [
        LocalOptions(workspace=Path("w"), claims={"posttrain": claim}, hub_endpoint="http://hub.test"),
        LocalOptions(workspace=Path(".posttrain"), claims={}, hub_endpoint="http://other.test"),
    ]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("posttrain", "expected NAME=DIR, found 'posttrain'"),
        ("posttrain=/nowhere/at/all", "claim posttrain: /nowhere/at/all is not a folder"),
    ],
)
def test_a_wrong_claim_is_wrong_usage(manifest: str, value: str, sentence: str) -> None:
    result = invoke("run", "--claim", value, manifest)
    assert (result.exit_code, sentence in result.stderr) == (2, True)
