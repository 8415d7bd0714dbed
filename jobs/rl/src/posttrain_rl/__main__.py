"""``python -m posttrain_rl --config PATH``: the supervisor of this pod's training process."""

import sys

from posttrain_runtime.main import run_stage
from posttrain_runtime.ranks import run_ranks

if __name__ == "__main__":
    sys.exit(run_stage("rl", lambda context: run_ranks("posttrain_rl.rank", context)))
