"""Where things lie in the store: the one place that spells the paths.

``<store>/<namespace>/<kind>/<name>-<uid8>/`` is the run folder of one object. All paths here are relative.
"""

from typing import Final

ARTIFACT: Final = "artifact"
"""Folder of the published files; complete once ``MANIFEST`` exists."""
MANIFEST: Final = "artifact.json"
CHECKPOINTS: Final = "checkpoints"
LOGS: Final = "logs"
METRICS: Final = "logs/metrics.jsonl"
"""History of the figures, one ``HistoryLine`` a line."""
SAMPLES: Final = "logs/samples.jsonl"
"""Held-out samples of the evaluations, one ``SampleLine`` a line."""
TENSORBOARD: Final = "logs/tensorboard"
"""Folder of TensorBoard's event files."""
WANDB_PARENT: Final = "logs"
"""Folder in which W&B makes its own, ``wandb``."""
RESULT: Final = "result.json"
"""The StageResult of the last attempt that ended."""
DIVERGENCE: Final = "divergence.json"
"""The steps at which attempts ended by figures that are no numbers."""
WORK: Final = "work"
"""What the pods of one run share while they work; removed once the artifact is published."""
PREPARED: Final = "prepared"
"""Prepared datasets of a namespace, each in a folder named by its content; beside the folders of the kinds."""
PREPARED_KEY: Final = "prepared.json"
"""Which of them the run trains on."""
PINS: Final = "inputs.json"
"""Which commits of its inputs on the Hub the run reads."""
HUB: Final = "hub"
"""What was fetched from the Hub for a namespace, each like an artifact in a folder named by commit and files; beside
the folders of the kinds."""
SERVER_KEY: Final = "server.key"
"""The key that this run's vLLM servers ask for; readable by the run's own user only."""
COMPLETE: Final = "_COMPLETE.json"
"""Marker of a whole checkpoint, inside its folder."""

MOUNT_ROOT: Final = "/posttrain"
"""Where a pod sees its mounts. Paths in a StageConfig are relative to it: one ConfigMap serves pods and processes."""
CONFIG_MOUNT: Final = "config"
CONFIG_FILE: Final = "config/stage.json"
STORE_MOUNT: Final = "store"
TERMINATION_LOG: Final = "termination-log"

TELEMETRY_PORT: Final = 9464
"""Every stage answers /progress, /metrics, /healthz and /readyz here."""
SERVER_PORT: Final = 8000
"""vLLM's HTTP port."""
WEIGHT_PORT: Final = 51216
"""Rendezvous of the weight transfer between a trainer and its rollout servers."""


def run_folder(*, namespace: str, kind: str, name: str, uid: str) -> str:
    """The folder of one object's run below the store; a recreated object has a new uid and so a new folder."""
    return f"{namespace}/{kind.lower()}/{name}-{uid[:8]}"
