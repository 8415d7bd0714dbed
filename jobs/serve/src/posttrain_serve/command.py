"""The contract in the words of vLLM. Pure."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from posttrain_contract import layout
from posttrain_contract.stage import ServeStage
from posttrain_training.rollout import GLOO, MODEL_NAME, NCCL

from posttrain_serve.guard import KEY_VARIABLE

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_BATCHED_TOKENS = 8192
_MIB = 1 << 20


def command(config: ServeStage, *, model: Path, host: str) -> list[str]:
    """The command line of vLLM's OpenAI-compatible server."""
    on_cpu = config.run.gpus == 0
    options = {
        "--model": str(model),
        # By itself it would take pickled weights where there are no others.
        "--load-format": "safetensors",
        "--served-model-name": MODEL_NAME,
        "--host": host,
        "--port": str(layout.SERVER_PORT),
        "--dtype": _DTYPES[config.precision],
        "--seed": str(config.seed),
        "--tensor-parallel-size": str(config.tensor_parallel),
        "--max-model-len": str(config.max_model_length),
        "--max-num-seqs": str(config.max_sequences),
        # Sampling is what the request says, not what the model folder recommends.
        "--generation-config": "vllm",
        # The trainer compares its own log-probabilities with these, after temperature.
        "--logprobs-mode": "processed_logprobs",
        "--max-logprobs": "-1",
        "--weight-transfer-config": json.dumps({"backend": GLOO if on_cpu else NCCL}),
        "--middleware": "posttrain_serve.guard.Guard",
    }
    flags = ["--disable-fastapi-docs", "--disable-uvicorn-access-log"]
    if on_cpu:
        options["--kv-cache-memory-bytes"] = str(config.cache_memory_mi * _MIB)
        # A request with a seed whose prompt is processed in pieces ends the engine on CPU.
        options["--max-num-batched-tokens"] = str(max(_BATCHED_TOKENS, config.max_model_length))
        flags += ["--no-enable-chunked-prefill", "--enforce-eager"]
    module = ["-m", "vllm.entrypoints.openai.api_server"]
    return [sys.executable, *module, *(part for option in options.items() for part in option), *flags]


def environment(config: ServeStage, *, inherited: Mapping[str, str], host: str, key: str) -> dict[str, str]:
    """The environment of the server process."""
    ours = {
        KEY_VARIABLE: key,
        "VLLM_HOST_IP": host,
        "VLLM_SERVER_DEV_MODE": "1",  # the weight-transfer routes are among the development routes
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if config.run.gpus == 0:
        # Without a C++ compiler the CPU sampler's torch.compile fails, and it is slower with one.
        ours |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        ours["OMP_NUM_THREADS"] = inherited.get("OMP_NUM_THREADS", "1")
    return {**inherited, **ours}
