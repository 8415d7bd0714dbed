"""What must not be in the tree: traps for the interpreter, traces of a machine."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]

TRACES = re.compile(
    r"(?<![\w.$}-])/(?:root|work|home/\w+|Users/\w+|tmp/(?:bash_jobs|scratch))(?=/)"  # folders of one machine
    r"|\b(?:pypi|pythonhosted|npmjs|crates|golang|maven\.apache|debian)\.(?:org|com|io)\b"  # package registries
)
"""Home directories and package registries: true on one machine, wrong or slow on the next."""


def project_files() -> list[Path]:
    """Every file that is tracked or would be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_under_operator_shadows_the_standard_librarys_operator() -> None:
    """With a package or a collected file there, `import operator` finds this folder and unrelated programs fail."""
    assert not (ROOT / "operator/__init__.py").exists()
    collected = [path.name for path in project_files() if path.is_relative_to(ROOT / "operator")]
    assert not [name for name in collected if re.fullmatch(r"conftest\.py|test_.*\.py|.*_test\.py", name)]


def test_no_file_says_where_it_was_made() -> None:
    found = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in TRACES.finditer(text)]
    assert not [trace for trace in found if not trace.startswith("tests/unit/repo/test_tree.py")]


def test_the_scan_finds_what_it_looks_for() -> None:
    seen = ["see /root/x", '"/work/main/a"', "https://pypi.org/simple", "files.pythonhosted.org", "/home/ann/file"]
    assert all(TRACES.search(text) for text in seen)
    unseen = ["$HOME/work/x", "a/work/b", "/posttrain/config", "/tmp", "https://debian.example", "network/root/x"]
    assert not [text for text in unseen if TRACES.search(text)]


def test_every_text_ends_its_last_line() -> None:
    texts = [path for path in project_files() if path.suffix in {".py", ".md", ".yaml", ".toml", ".in", ".lock", ".sh"}]
    assert not [str(path) for path in texts if (data := path.read_bytes()) and not data.endswith(b"\n")]
