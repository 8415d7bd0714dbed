"""``python -m posttrain_finetune --config PATH``: the supervisor of this pod's training processes."""

import sys

from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.main import run_stage
from posttrain_runtime.ranks import run_ranks


def supervise(context: StageContext[FineTuneStage]) -> Finished:
    """Runs this pod's training processes to their end."""
    return run_ranks("posttrain_finetune.rank", context, patience=context.config.spec.training.stall_timeout)


if __name__ == "__main__":
    sys.exit(run_stage("finetune", supervise, modules=["bitsandbytes", "deepspeed"]))
