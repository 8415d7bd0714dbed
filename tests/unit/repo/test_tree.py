"""What must not be in the tree: traps for the interpreter, traces of a machine."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]

FOLDERS = ("root", "work", r"home/\w+", r"Users/\w+")
REGISTRIES = ("py" + "pi", "python" + "hosted", "npm" + "js", "crates", "golang", r"maven\.apache", "debian")
# Put together from pieces, so that this file is free of what it looks for.
TRACES = re.compile(rf"(?<![\w.$}}-])/(?:{'|'.join(FOLDERS)})(?=/)|\b(?:{'|'.join(REGISTRIES)})\.(?:org|com|io)\b")
"""Home directories and package registries: true on one machine, wrong or slow on the next."""

GO_PINS = ("go.mod", "go.sum")
"""Names of Go modules look like addresses."""


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
        if path.name in GO_PINS:
            text = text.replace(f"{REGISTRIES[4]}.org/", "")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in TRACES.finditer(text)]
    assert not found


def test_the_scan_finds_what_it_looks_for() -> None:
    folders = [f"see /{name}/file" for name in ("root", "work", "home/ann", "Users/ann")]
    seen = [*folders, f"https://{REGISTRIES[0]}.org/simple", f"files.{REGISTRIES[1]}.org"]
    assert all(TRACES.search(text) for text in seen)
    beside = [f"{before}/{FOLDERS[0]}/x" for before in ("$HOME", "a", "network")]
    unseen = [*beside, "/posttrain/config", "/tmp", "https://debian.example"]
    assert not [text for text in unseen if TRACES.search(text)]


def test_every_text_ends_its_last_line() -> None:
    texts = [path for path in project_files() if path.suffix in {".py", ".md", ".yaml", ".toml", ".in", ".lock", ".sh"}]
    assert not [str(path) for path in texts if (data := path.read_bytes()) and not data.endswith(b"\n")]
