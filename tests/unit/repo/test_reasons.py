"""Every word that says why has a place in the documentation where it is said what to do."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_operator.labels import Reason

ROOT: Final = Path(__file__).parents[3]
GUIDE: Final = ROOT / "docs/troubleshooting.md"
WORD: Final = re.compile(r"[A-Z][A-Za-z0-9]*[a-z0-9]")
ROW: Final = re.compile(
    r"^\| (?P<codes>[\d, ]+) \| (?P<again>no|yes|yes, free) \| (?P<words>[^|]+) \| [^|]+ \|$", re.MULTILINE
)


def stage_sources() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.glob("jobs/*/src/**/*.py"))}


def told_by(sources: dict[Path, ast.Module]) -> Iterator[str]:
    """The words that stages end with: arguments of whatever has a parameter ``reason``, and of results."""
    makers = {"StageError", "StageResult"}
    for tree in sources.values():
        makers |= {name for name, function in functions(tree) if "reason" in {arg.arg for arg in function.args.args}}
    for tree in sources.values():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if called(call) in makers:
                values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "reason")]
                yield from (text for value in values for text in words(value))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions by the name that they are called by: of a class its own, not ``__init__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from ((node.name, f) for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
        elif isinstance(node, ast.FunctionDef) and node.name != "__init__":
            yield node.name, node


def called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def words(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
            yield node.value


def table() -> dict[str, set[int]]:
    """The exit statuses that the guide says of each word."""
    found: dict[str, set[int]] = {}
    for row in ROW.finditer(GUIDE.read_text("utf-8")):
        codes = {int(code) for code in row["codes"].split(",")}
        for word in re.findall(r"`(\w+)`", row["words"]):
            found.setdefault(word, set()).update(codes)
    return found


def test_the_guide_has_every_word_of_every_stage_and_no_other() -> None:
    outcomes = {"Succeeded", "Failed"}
    assert set(table()) == set(told_by(stage_sources())) - outcomes


def test_the_guide_has_every_exit_status_and_says_rightly_whether_another_attempt_follows() -> None:
    rows = [
        (int(code), row["again"]) for row in ROW.finditer(GUIDE.read_text("utf-8")) for code in row["codes"].split(",")
    ]
    assert {code for code, _ in rows} == {int(code) for code in ExitCode if code is not ExitCode.DONE}
    for number, again in rows:
        code = ExitCode(number)
        assert again == ("yes, free" if code.preempted else "yes" if code.retriable else "no"), code


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("MissingColumn", ExitCode.DATA),
        ("RemoteCode", ExitCode.MODEL),
        ("Stalled", ExitCode.PEER_LOST),
        ("DiskFull", ExitCode.STORAGE),
        ("Diverged", ExitCode.DIVERGED),
    ],
)
def test_a_word_stands_beside_its_exit_status(word: str, code: ExitCode) -> None:
    assert table()[word] == {int(code)}


def test_every_reason_of_the_operator_has_what_to_do() -> None:
    page = (ROOT / "docs/reasons.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]{10,} \| ([^|]+) \|$", page, re.MULTILINE))
    assert set(rows) == {reason.value for reason in Reason}
    assert all(text.endswith(".") for text in rows.values())


def test_a_reason_that_does_not_say_what_to_do_is_refused(tmp_path: Path) -> None:
    for part in ("hack/reasons.py", "operator/src/posttrain_operator/labels.py", "docs/reasons.md"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_text((ROOT / part).read_text("utf-8"), "utf-8")
    labels = tmp_path / "operator/src/posttrain_operator/labels.py"
    labels.write_text(labels.read_text("utf-8").rstrip("\n") + '\n    NEW = "New"\n    """Something new."""\n', "utf-8")
    command = [sys.executable, "hack/reasons.py", "check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "say what to do" in done.stderr
