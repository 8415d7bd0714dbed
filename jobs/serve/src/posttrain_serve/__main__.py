"""``python -m posttrain_serve --config PATH``: one vLLM server, until it is told to stop."""

import sys

from posttrain_runtime.main import run_stage

from posttrain_serve.server import serve

if __name__ == "__main__":
    sys.exit(run_stage("serve", serve, modules=["vllm"], libraries=["numa"]))
