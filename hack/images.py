"""Tries built images as a cluster would run them: ``images.py [--engine docker] IMAGE...``.

Any user, no capability, no network, a read-only root file system with /tmp to write to. Every program has to tell its
version and to find all that it needs (``--check``), and every module has its byte code. Prints the compressed sizes.
"""

import argparse
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CONTENTS = Path(__file__).with_name("image_contents.py")
STAGES = ("filter", "finetune", "rl", "serve", "upload")
PROGRAMS = {"operator": ("operator",), "cpu": STAGES, **{stage: (stage,) for stage in STAGES}}
LABELS = ("title", "licenses", "version", "revision", "source")
MOST_BYTES = {"operator": 150 * 10**6}
USER = 54321
"""Of nobody, and not the one that the image names: clusters choose their own."""
RESTRICTED = ("--rm", "--read-only", "--tmpfs=/tmp:exec", "--network=none", "--cap-drop=ALL", f"--user={USER}:0")


class Image:
    """A built image and the engine that has it: docker, podman, or what takes the same arguments."""

    def __init__(self, engine: str, name: str) -> None:
        self.name = name
        self.kind = name.rpartition("/")[2].partition("@")[0].partition(":")[0]
        self._engine = engine

    def configuration(self) -> dict[str, Any]:
        """What the image says of itself."""
        found: dict[str, Any] = json.loads(self._run("image", "inspect", self.name))[0]["Config"]
        return found

    def run(self, *arguments: str, entrypoint: str | None = None) -> str:
        """What a program in the image prints. Raises ``CalledProcessError``."""
        options = (f"--entrypoint={entrypoint}",) if entrypoint else ()
        return self._run("run", *RESTRICTED, *options, self.name, *arguments)

    def compressed_bytes(self) -> int:
        """About what a registry keeps and a node pulls."""
        command = [self._engine, "save", self.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as saving:  # noqa: S603 - the engine that was named
            assert saving.stdout is not None  # noqa: S101 - it is a pipe
            size = compressed_bytes(saving.stdout)
        if saving.returncode:
            raise subprocess.CalledProcessError(saving.returncode, command)
        return size

    def _run(self, *arguments: str) -> str:
        command = [self._engine, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the engine that was named
        return done.stdout


def main() -> int:
    """Checks every image; returns the exit status."""
    parser = argparse.ArgumentParser(description="Tries built images as a cluster would run them.")
    parser.add_argument("--engine", default="docker", help="docker, podman, or what takes the same arguments")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="such as posttrain/operator:dev")
    arguments = parser.parse_args()
    images = [Image(arguments.engine, name) for name in arguments.images]
    if unknown := [image.name for image in images if image.kind not in PROGRAMS]:
        parser.error(f"{', '.join(unknown)}: an image is named like one of {', '.join(PROGRAMS)}")
    checked = [check(image) for image in images]
    return 0 if all(checked) else 1


def check(image: Image) -> bool:
    """Prints an image's size and what is wrong with it; whether nothing is."""
    try:
        found = list(problems(image))
        size = image.compressed_bytes()
    except subprocess.CalledProcessError as error:
        told = f"{error.stdout or ''}{error.stderr or ''}"
        sys.stdout.write(f"{image.name}: {error.cmd[1]} {error.cmd[-1]} ended with {error.returncode}\n{told}")
        return False
    if size > MOST_BYTES.get(image.kind, size):
        found.append(f"may have {MOST_BYTES[image.kind] / 1e6:.0f} MB")
    sys.stdout.write(f"{image.name}: {size / 1e6:.0f} MB compressed\n")
    sys.stdout.writelines(f"{image.name}: {problem}\n" for problem in found)
    return not found


def problems(image: Image) -> Iterator[str]:
    """What is wrong with an image. Raises ``CalledProcessError`` when one of its programs fails."""
    labels = image.configuration().get("Labels") or {}
    yield from (f"has no label {label}" for label in LABELS if not labels.get(f"org.opencontainers.image.{label}"))
    contents = json.loads(image.run("-c", CONTENTS.read_text(), "/opt", standard_library(image), entrypoint="python"))
    if contents["uid"] != USER:
        yield f"runs as user {contents['uid']} when {USER} was asked for"
    yield from (f"has no byte code for {path}" for path in contents["uncompiled"])
    yield from (f"has {path}" for path in contents["unsafe"])
    for program in PROGRAMS[image.kind]:
        # An image of one program starts it; in the others it is named.
        start = () if image.kind == "operator" else (f"posttrain_{program}",)
        told = image.run(*start, "--version")
        if not told.startswith(f"posttrain-{program} "):
            yield f"tells its version as {told!r}"
        image.run(*start, "--check")


def standard_library(image: Image) -> str:
    """Where an image has it: bases differ."""
    return image.run("-c", 'import sysconfig; print(sysconfig.get_path("stdlib"))', entrypoint="python").strip()


def compressed_bytes(stream: IO[bytes]) -> int:
    """How large a stream is when it is compressed as registries do."""
    packer = zlib.compressobj()
    size = 0
    while block := stream.read(1 << 20):
        size += len(packer.compress(block))
    return size + len(packer.flush())


if __name__ == "__main__":
    sys.exit(main())
