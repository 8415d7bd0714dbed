"""``python -m posttrain_finetune --config PATH``: the supervisor of this pod's training processes."""

import sys

from posttrain_runtime.main import run_stage
from posttrain_runtime.ranks import run_ranks

if __name__ == "__main__":
    sys.exit(run_stage("finetune", lambda context: run_ranks("posttrain_finetune.rank", context)))
