"""``python -m posttrain_rl --config PATH``: the supervisor of this pod's training process."""

import sys

from posttrain_contract.stage import RLStage
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.main import run_stage
from posttrain_runtime.ranks import run_ranks


def supervise(context: StageContext[RLStage]) -> Finished:
    """Runs this pod's training processes to their end; how long a step takes is up to the servers."""
    patience = context.config.spec.training.stall_timeout
    return run_ranks("posttrain_rl.rank", context, patience=patience, least_step=patience)


if __name__ == "__main__":
    sys.exit(run_stage("rl", supervise, modules=["bitsandbytes", "vllm"]))
