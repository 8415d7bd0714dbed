"""The smallest objects of the four kinds."""

import copy
from typing import Any

from posttrain_operator.cluster import Json
from posttrain_operator.labels import API_VERSION

_INPUT: Json = {"uri": "pvc://data/thing"}
SPECS: dict[str, Json] = {
    "FilterJob": {"source": _INPUT, "byLabel": {"column": "rate", "max": 0.5}},
    "FineTuneJob": {"model": _INPUT, "dataset": _INPUT},
    "RLJob": {"model": _INPUT, "dataset": _INPUT, "rewards": [{"name": "exact-match", "answer": "gsm8k"}]},
    "UploadJob": {"source": _INPUT, "repository": {"id": "acme/thing"}},
}


def job(kind: str = "FineTuneJob", name: str = "job", **spec: Any) -> Json:
    """The smallest object of a kind, with some fields of its spec set."""
    spec = {**copy.deepcopy(SPECS[kind]), **spec}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
