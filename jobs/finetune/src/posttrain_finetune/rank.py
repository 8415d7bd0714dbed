"""``python -m posttrain_finetune.rank``: one training process, started by the supervisor or by torchrun."""

import sys

from posttrain_contract.adapter import ADAPTER_INPUT
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import RankOutcome, run_rank
from posttrain_training import oom

from posttrain_finetune.lighter import advice


def work(context: StageContext[FineTuneStage]) -> RankOutcome:
    """Runs one rank to its end; what it reads is looked at and data is prepared before the libraries are loaded."""
    from posttrain_training.folders import check_model_folder  # noqa: PLC0415 - after the configuration was read

    from posttrain_finetune.sharding import check_override  # noqa: PLC0415

    spec = context.config.spec
    check_override(spec.distributed)
    check_model_folder(context.input_path("model"))
    if spec.adapter is not None and spec.adapter.initial is not None:
        from posttrain_finetune.initial import check_adapter_folder  # noqa: PLC0415

        check_adapter_folder(context.input_path(ADAPTER_INPUT), base=context.input_path("model"))
    from posttrain_finetune.data import prepared_rows  # noqa: PLC0415

    rows = prepared_rows(context)
    context.progress.update("loading libraries")
    from posttrain_finetune.train import train  # noqa: PLC0415

    with oom.naming(lambda: _advice(context)):
        return train(context, rows)


def _advice(context: StageContext[FineTuneStage]) -> str:
    from posttrain_training.gpus import memory  # noqa: PLC0415 - imports torch

    return advice(context.config.spec, context.input_path("model"), room=memory())


if __name__ == "__main__":
    sys.exit(run_rank(work))
