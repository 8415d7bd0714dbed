"""``python -m posttrain_upload --config PATH``."""

import sys

from posttrain_contract.stage import UploadStage
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.main import run_stage


def _work(context: StageContext[UploadStage]) -> Finished:
    from posttrain_upload.work import upload  # noqa: PLC0415 - heavy imports wait for a valid configuration

    return upload(context)


if __name__ == "__main__":
    sys.exit(run_stage("upload", _work))
