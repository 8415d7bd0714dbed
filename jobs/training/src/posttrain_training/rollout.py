"""What a trainer and its rollout servers must call alike. No ML library is imported here."""

from typing import Final

MODEL_NAME: Final = "policy"
"""The name under which the servers offer the model."""
GLOO: Final = "gloo"
"""The weight-transfer engine on CPU, which the server stage adds to vLLM."""
NCCL: Final = "nccl"
"""The weight-transfer engine on GPUs, which vLLM brings."""
