"""``python -m posttrain_finetune.rank``: one training process, started by the supervisor or by torchrun."""

import sys

from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import RankOutcome, run_rank


def work(context: StageContext[FineTuneStage]) -> RankOutcome:
    """Runs one rank to its end; the model folder is looked at and data is prepared before the libraries are loaded."""
    from posttrain_training.folders import check_model_folder  # noqa: PLC0415 - after the configuration was read

    from posttrain_finetune.sharding import check_override  # noqa: PLC0415

    check_override(context.config.spec.distributed)
    check_model_folder(context.input_path("model"))
    from posttrain_finetune.data import prepared_rows  # noqa: PLC0415

    rows = prepared_rows(context)
    context.progress.update("loading libraries")
    from posttrain_finetune.train import train  # noqa: PLC0415

    return train(context, rows)


if __name__ == "__main__":
    sys.exit(run_rank(work))
