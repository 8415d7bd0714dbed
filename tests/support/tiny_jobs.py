"""Objects that train the tiny model on a cluster: small enough for two pods on a node of two cores."""

from typing import Any, Final

from posttrain_operator.cluster import Json
from posttrain_operator.labels import API_VERSION

MODEL: Final[Json] = {"uri": "pvc://posttrain/tiny/base-model"}
PROBLEMS: Final[Json] = {"uri": "pvc://posttrain/tiny/train.jsonl"}
CPU: Final = "800m"
TUNING_MEMORY: Final = "2Gi"
RL_MEMORY: Final = "3Gi"


def filtering(name: str = "filter", **run: Any) -> Json:
    """A FilterJob that keeps every problem."""
    spec = {"source": PROBLEMS, "byLabel": {"column": "pass_rate", "max": 1.0}}
    return _job("FilterJob", name, spec, memory="512Mi", **run)


def tuning(name: str = "tune", *, steps: int, save_every: int = 100, nodes: int = 1, **run: Any) -> Json:
    """A FineTuneJob; a step takes some 20 ms, and the start of its pods half a minute."""
    spec = {
        "model": MODEL,
        "dataset": {**PROBLEMS, "columns": {"prompt": "problem", "completion": "solution"}},
        "training": {"maxSteps": steps, "batchSize": 8, "learningRate": 0.001, "precision": "fp32", "maxLength": 128},
        "checkpoints": {"everySteps": save_every},
        "distributed": {"nodes": nodes},
    }
    return _job("FineTuneJob", name, spec, memory=TUNING_MEMORY, **run)


def reinforcement(name: str = "rl", *, steps: int, save_every: int = 10, **run: Any) -> Json:
    """An RLJob with one rollout server."""
    spec = {
        "model": MODEL,
        "dataset": {**PROBLEMS, "columns": {"prompt": "problem", "answer": "answer"}},
        "rewards": [{"name": "exact-match", "answer": "gsm8k"}],
        "rollout": {
            "maxModelLength": 128,
            "maxSequences": 32,
            "cacheMemoryMi": 16,
            "sampling": {"maxNewTokens": 16},
        },
        "grpo": {"groupSize": 4},
        "training": {"maxSteps": steps, "batchSize": 16, "learningRate": 0.0005, "precision": "fp32"},
        "checkpoints": {"everySteps": save_every},
    }
    return _job("RLJob", name, spec, memory=RL_MEMORY, **run)


def _job(kind: str, name: str, spec: Json, *, memory: str, **run: Any) -> Json:
    resources = {"cpu": CPU, "memory": memory, **run.pop("resources", {})}
    whole = {**spec, "run": {"resources": resources, **run}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": whole}
