"""The programs of a control plane on this machine."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_UNAVAILABLE: Final = 3


class NoToolsError(Exception):
    """Neither the programs nor Go are on this machine; the message says how to get them."""


@dataclass(frozen=True)
class Tools:
    """Where the programs are, and the file of the PyTorchJob CRD."""

    programs: Path
    pytorchjob_crd: Path

    def program(self, name: str) -> Path:
        return self.programs / name

    @property
    def controllers(self) -> bool:
        """Whether there is a kube-controller-manager: without one nothing is garbage collected and no pod is made."""
        return self.program("kube-controller-manager").is_file()


def find_tools() -> Tools:
    """The programs, built when they are not there yet, which takes minutes. Raises ``NoToolsError``."""
    return Tools(_control_plane_tool("programs"), _control_plane_tool("crd"))


def _control_plane_tool(what: str) -> Path:
    command = [sys.executable, str(ROOT / "hack/control_plane.py"), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tool:
        said = ""
        for line in tool.stderr or ():
            sys.stderr.write(line)  # at once: people shall see that it builds
            said += line
        path = tool.stdout.read().strip() if tool.stdout else ""
    if tool.returncode == _UNAVAILABLE:
        raise NoToolsError(said.strip())
    assert tool.returncode == 0, f"{' '.join(command)}: {said}"
    return Path(path)
