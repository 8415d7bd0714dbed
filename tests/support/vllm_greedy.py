"""``vllm_greedy.py MODEL...``: greedy tokens of vLLM for prompts of tokens on standard input, as JSON.

A program of its own, since vLLM wants its settings in the environment before it is imported.
"""

import gc
import json
import sys
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

CACHE_BYTES = 16 << 20


def greedy(model: str, prompts: list[list[int]], *, tokens: int) -> list[list[int]]:
    """What a model writes after each prompt."""
    engine: Any = LLM(
        model=model,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=8,
        enforce_eager=True,
        kv_cache_memory_bytes=CACHE_BYTES,
        enable_chunked_prefill=False,
        max_num_batched_tokens=8192,
        disable_log_stats=True,
    )
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    answers = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
    return [list(answer.outputs[0].token_ids) for answer in answers]


def main() -> None:
    asked = json.load(sys.stdin)
    found = []
    for model in sys.argv[1:]:
        found.append(greedy(model, asked["prompts"], tokens=asked["tokens"]))
        gc.collect()
        cleanup_dist_env_and_memory()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
