"""vLLM finds ``register`` by its plugin entry point and calls it in each of its processes."""

from posttrain_training.rollout import GLOO
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory


def register() -> None:
    """Makes ``--weight-transfer-config '{"backend": "gloo"}'`` known; vLLM calls it more than once."""
    if GLOO not in WeightTransferEngineFactory._registry:  # noqa: SLF001 - it has no way to ask
        WeightTransferEngineFactory.register_engine(GLOO, "posttrain_serve.gloo_engine", "GlooWeightTransferEngine")
