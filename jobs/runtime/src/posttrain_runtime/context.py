"""What a stage program is given to work with."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from posttrain_contract import layout
from posttrain_contract.artifact import InputEntry
from posttrain_contract.hub import HubAddress, Pin, Pins
from posttrain_contract.stage import (
    FilterStage,
    FineTuneStage,
    ResolvedInput,
    RLStage,
    ServeStage,
    UploadStage,
    config_digest,
)

from posttrain_runtime.errors import Preempted
from posttrain_runtime.progress import ProgressReporter
from posttrain_runtime.store import Staged, read_manifest

Config = TypeVar("Config", bound=FilterStage | FineTuneStage | RLStage | ServeStage | UploadStage)


def mount_root(config_path: Path) -> Path:
    """The folder that the paths of a configuration are relative to: two levels above the file."""
    return config_path.absolute().parent.parent


@dataclass(frozen=True)
class Finished:
    """What came of a stage that did its work."""

    metrics: dict[str, float] = field(default_factory=dict)
    staged: Staged | None = None
    resumed_from: str | None = None
    message: str = ""
    """What people should know although all went well."""


@dataclass(frozen=True)
class StageContext(Generic[Config]):
    """One attempt: its configuration, its folders, and the ways to report and to be stopped."""

    config: Config
    config_path: Path
    scratch: Path
    """A folder of this pod alone, gone with it."""
    progress: ProgressReporter
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the stage is asked to stop."""
    ready: threading.Event = field(default_factory=threading.Event)
    """Set when the stage is ready to serve; ``/readyz`` answers by it."""

    @property
    def root(self) -> Path:
        """The folder that the configuration's paths are relative to."""
        return mount_root(self.config_path)

    @property
    def folder(self) -> Path:
        """The run folder in the store."""
        return self.root / self.config.run.folder

    @property
    def publishes(self) -> bool:
        """Whether the run folder's artifact is this stage's; a rollout server works in the folder of its trainer."""
        return self.config.stage != "serve"

    @property
    def staging(self) -> Path:
        """Where this pod builds the artifact before it is published, on the store's own file system.

        Two pods of one index may be at work for a while, when a node is lost; the name is this pod's alone.
        """
        return self.folder / f"{self.staging_prefix}{self.scratch.name}"

    @property
    def staging_prefix(self) -> str:
        """How the names of all staging folders begin that pods of this index have made."""
        index = os.environ.get("JOB_COMPLETION_INDEX") or os.environ.get("PET_NODE_RANK", "0")
        return f".staging-{index}-"

    @property
    def work_area(self) -> Path:
        """A folder that the pods of this run share while they work; the stage makes it, publishing removes it."""
        return self.folder / layout.WORK

    @property
    def digest(self) -> str:
        """The digest of configuration and inputs, see ``posttrain_contract.stage.config_digest``."""
        return config_digest(self.config)

    def input(self, name: str) -> ResolvedInput:
        """A resolved input by its name."""
        return self.config.run.inputs[name]

    def input_path(self, name: str) -> Path:
        """Where an input lies; one on the Hub once it was fetched."""
        item = self.input(name)
        pin = self.pins.get(name)
        return self.root / item.path if pin is None else self.root / item.path / pin.key / layout.ARTIFACT

    @property
    def lineage(self) -> dict[str, InputEntry]:
        """The inputs as the artifact's manifest records them."""
        return {name: self._lineage(name, item) for name, item in self.config.run.inputs.items()}

    def _lineage(self, name: str, item: ResolvedInput) -> InputEntry:
        if (pin := self.pins.get(name)) is None:
            return InputEntry(uri=item.uri, digest=item.digest)
        manifest = read_manifest(self.input_path(name).parent)
        digest = None if manifest is None else manifest.digest
        return InputEntry(uri=HubAddress.parse(pin.uri).at(pin.revision), digest=digest)

    @property
    def pins(self) -> Mapping[str, Pin]:
        """The commits of the inputs on the Hub, by name, as far as they are known."""
        try:
            return Pins.model_validate_json((self.folder / layout.PINS).read_bytes()).inputs
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def check_stop(self) -> None:
        """Raises ``Preempted`` when the stage was asked to stop; for stages that have nothing to save."""
        if self.stop.is_set():
            raise Preempted(saved=False)
