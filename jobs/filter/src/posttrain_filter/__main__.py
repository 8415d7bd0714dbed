"""``python -m posttrain_filter --config PATH``."""

import sys

from posttrain_contract.stage import FilterStage
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.main import run_stage


def _work(context: StageContext[FilterStage]) -> Finished:
    from posttrain_filter.work import filter_rows  # noqa: PLC0415 - heavy imports wait for a valid configuration

    return filter_rows(context)


if __name__ == "__main__":
    sys.exit(run_stage("filter", _work))
