"""The Dockerfiles build what the operator runs, from locks; the program that tries images finds what is wrong."""

import json
import os
import py_compile
import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from posttrain_operator.settings import STAGES

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
IMAGES = ("operator", "cpu", *STAGES)

every_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction and what it says, continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def of(dockerfile: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(dockerfile) if found == word]


def copied(dockerfile: Path) -> list[str]:
    """What is taken from the checkout, the name of each stage in turn where it is an argument."""
    sources = [path for rest in of(dockerfile, "COPY") if "--from" not in rest for path in rest.split()[:-1]]
    stages = ("cpu", *STAGES)
    return [path.replace("$STAGE", stage) for path in sources for stage in (stages if "$STAGE" in path else ("",))]


@every_dockerfile
def test_what_is_copied_is_there_and_not_ignored(dockerfile: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in copied(dockerfile):
        assert (ROOT / path).exists()
        assert any(fnmatch(path, f"{top}*") for top in allowed)


@every_dockerfile
def test_the_base_is_the_python_that_the_locks_are_for(dockerfile: Path) -> None:
    (first,) = re.findall(r'^PYTHONS = \("([\d.]+)"', (ROOT / "hack/locks.py").read_text(), re.MULTILINE)
    assert {base.partition(" AS ")[0] for base in of(dockerfile, "FROM")} == {f"python:{first}-slim-bookworm"}


@every_dockerfile
def test_libraries_come_from_a_hashed_lock_alone(dockerfile: Path) -> None:
    for command in of(dockerfile, "RUN"):
        for options in re.findall(r"pip (?:--python \S+ )?(?:install|wheel) ([^&|;]*)", command):
            assert "--require-hashes" in options or "--no-index" in options


@every_dockerfile
def test_a_change_of_our_code_leaves_the_layer_of_the_libraries_as_it_was(dockerfile: Path) -> None:
    last = [index for index, (word, _) in enumerate(instructions(dockerfile)) if word == "FROM"][-1]
    final = instructions(dockerfile)[last:]
    libraries = next(index for index, (_, rest) in enumerate(final) if "--require-hashes" in rest)
    before = [rest for word, rest in final[:libraries] if word == "COPY"]
    assert len(before) == 1
    assert all(path.startswith("locks/") for path in before[0].split()[:-1])


@every_dockerfile
def test_the_standard_library_is_compiled_below_our_code(dockerfile: Path, library: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    assert contents(venv, library)["uncompiled"] == [str(library / "a.py"), str(library / "json/b.py")]
    compiling, wheels = at(dockerfile, "compileall"), at(dockerfile, "COPY --from=wheels")
    assert at(dockerfile, "--require-hashes") < compiling < wheels, "what changes least comes first"
    run_as_root_would(final(dockerfile)[compiling].removeprefix("RUN "), library, tmp_path)
    assert contents(venv, library)["uncompiled"] == []


def at(dockerfile: Path, what: str) -> int:
    """Where the final image is made: the one instruction that says this."""
    (found,) = [index for index, text in enumerate(final(dockerfile)) if what in text]
    return found


def final(dockerfile: Path) -> list[str]:
    """The instructions that make the final image."""
    lines = [f"{word} {rest}" for word, rest in instructions(dockerfile)]
    return lines[[index for index, line in enumerate(lines) if line.startswith("FROM ")][-1] :]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library as some bases have it: with tests that are no Python, and with what the base installed."""
    folder = tmp_path / "python3.11"
    texts = {"a.py": "x = 1\n", "json/b.py": "x = 1\n", "lib2to3/tests/data/old.py": "print 1\n"}
    for path, text in (texts | {"test/bad.py": "x =\n", "site-packages/pip.py": "x = 1\n"}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def run_as_root_would(command: str, library: Path, folder: Path) -> None:
    """Runs a shell command where Python says that its standard library is in a folder."""
    python = folder / "bin/python"
    python.parent.mkdir()
    asked = """*'sysconfig.get_path("stdlib")'*"""
    python.write_text(f'#!/bin/sh\ncase "$*" in {asked}) echo {library};; *) exec {sys.executable} "$@";; esac\n')
    python.chmod(0o755)
    path = f"{python.parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", command], check=True, env={**os.environ, "PATH": path}, timeout=60)


@every_dockerfile
def test_it_runs_as_a_user_without_a_name_and_without_a_shell(dockerfile: Path) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of(dockerfile, "USER")[-1])
    (entry,) = of(dockerfile, "ENTRYPOINT")
    assert json.loads(entry)[:2] == ["python", "-m"], "as the operator's pods start it"


@every_dockerfile
def test_it_says_what_it_is_and_where_it_comes_from(dockerfile: Path) -> None:
    (labels,) = of(dockerfile, "LABEL")
    said = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', labels))
    given = {name: f"${name.upper()}" for name in ("version", "revision", "source")}
    assert said == {"title": said["title"], "licenses": "Apache-2.0", **given}
    assert {argument.partition("=")[0] for argument in of(dockerfile, "ARG")} >= {"VERSION", "REVISION", "SOURCE"}


def test_every_image_has_a_lock_and_a_line_in_the_readme() -> None:
    readme = (ROOT / "images/README.md").read_text()
    for image in IMAGES:
        assert (ROOT / f"locks/{image}.lock").is_file()
        assert re.search(rf"^\| {image} \|.*`locks/{image}\.lock`", readme, re.MULTILINE)


def test_the_pages_build_images_from_dockerfiles_that_are_there() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "images/README.md", *DOCKERFILES]
    named = {path for page in pages for path in re.findall(r"-f (images/\S+)", page.read_text())}
    assert named == {str(path.relative_to(ROOT)) for path in DOCKERFILES}


ENGINE = """#!{python}
# A container engine with one image, whose programs are this machine's.
import json, os, subprocess, sys, sysconfig
folder, words = {folder!r}, sys.argv[1:]
if words[:2] == ["image", "inspect"]:
    print(open(folder + "/image.json").read())
elif words[0] == "save":
    os.write(1, open(folder + "/layers", "rb").read())
else:
    assert {{"--read-only", "--network=none", "--cap-drop=ALL"}} <= set(words)
    rest = words[words.index("posttrain/filter:dev") + 1:]
    if rest[0] == "-c" and len(rest) > 2:
        assert rest[2:] == ["/opt", sysconfig.get_path("stdlib")]
        print(open(folder + "/contents.json").read())
    elif rest[0] == "-c":
        subprocess.run([sys.executable, *rest], check=True)
    else:
        sys.exit(subprocess.run([sys.executable, "-m", *rest]).returncode)
"""
LABELS = {f"org.opencontainers.image.{name}": "x" for name in ("title", "licenses", "version", "revision", "source")}


class Built:
    """An image of the filter, as the engine of this folder has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: dict[str, Any] = {"uid": 54321, "uncompiled": [], "unsafe": []}
        self.labels = dict(LABELS)
        engine = folder / "engine"
        engine.write_text(ENGINE.format(python=sys.executable, folder=str(folder)))
        engine.chmod(0o755)
        (folder / "layers").write_bytes(os.urandom(3_000_000))

    def tried(self) -> tuple[int, str]:
        """Exit status and what was printed."""
        (self.folder / "image.json").write_text(json.dumps([{"Config": {"Labels": self.labels}}]))
        (self.folder / "contents.json").write_text(json.dumps(self.contents))
        command = [sys.executable, str(ROOT / "hack/images.py"), f"--engine={self.folder}/engine"]
        done = subprocess.run([*command, "posttrain/filter:dev"], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Built(tmp_path)


def test_a_sound_image_passes_and_its_size_is_told(built: Built) -> None:
    assert built.tried() == (0, "posttrain/filter:dev: 3 MB compressed\n")


def test_what_is_wrong_with_an_image_is_told(built: Built) -> None:
    del built.labels["org.opencontainers.image.revision"]
    built.contents = {"uid": 0, "uncompiled": ["/opt/a.py"], "unsafe": ["/opt/b (-rwsr-xr-x)"]}
    code, told = built.tried()
    assert code == 1
    for problem in (
        "has no label revision",
        "runs as user 0",
        "has no byte code for /opt/a.py",
        "has /opt/b (-rwsr-xr-x)",
    ):
        assert f"posttrain/filter:dev: {problem}" in told


def test_an_image_that_is_too_large_fails(
    built: Built, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built.tried()
    program = runpy.run_path(str(ROOT / "hack/images.py"))
    image = program["Image"](f"{built.folder}/engine", "posttrain/filter:dev")
    assert program["check"](image)
    monkeypatch.setitem(program["MOST_BYTES"], "filter", 2_000_000)
    assert not program["check"](image)
    assert "posttrain/filter:dev: may have 2 MB" in capsys.readouterr().out


def test_what_a_failing_program_said_is_told(built: Built) -> None:
    engine = built.folder / "engine"
    engine.write_text(engine.read_text().replace('"-m", *rest', '"-m", "posttrain_filter", "--no-such-option"'))
    code, told = built.tried()
    assert code == 1
    assert "ended with 2" in told
    assert "usage: posttrain-filter" in told


def contents(folder: Path, library: Path = Path("/nowhere")) -> dict[str, Any]:
    """What the program that runs inside an image finds."""
    command = [sys.executable, "-c", (ROOT / "hack/image_contents.py").read_text(), str(folder), str(library)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module with its byte code."""
    path = tmp_path / "lib/site-packages/package/module.py"
    path.parent.mkdir(parents=True)
    path.write_text("x = 1\n")
    py_compile.compile(str(path), doraise=True)
    return path


def test_a_module_with_its_byte_code_is_fine(tmp_path: Path, module: Path) -> None:
    module.with_name("template.py").write_text("{% not Python %}\n")
    assert contents(tmp_path) == {"uid": os.getuid(), "uncompiled": [], "unsafe": []}


def test_a_module_without_byte_code_or_with_that_of_another_source_is_named(tmp_path: Path, module: Path) -> None:
    module.write_text("x = 1000\n")
    other = module.with_name("other.py")
    other.write_text("y = 1\n")
    assert contents(tmp_path)["uncompiled"] == [str(module), str(other)]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o666])
def test_what_runs_with_anothers_rights_or_anybody_may_change_is_named(tmp_path: Path, module: Path, mode: int) -> None:
    module.chmod(mode)
    assert [str(module) in line for line in contents(tmp_path)["unsafe"]] == [True]
