"""``python -m posttrain_finetune.rank``: one training process, started by the supervisor or by torchrun."""

import sys

from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import RankOutcome, run_rank
from posttrain_training import oom

_UNQUANTIZABLE = ("zero3", "fsdp2")
"""Strategies that cannot shard quantized weights."""


def work(context: StageContext[FineTuneStage]) -> RankOutcome:
    """Runs one rank to its end; the model folder is looked at and data is prepared before the libraries are loaded."""
    from posttrain_training.folders import check_model_folder  # noqa: PLC0415 - after the configuration was read

    from posttrain_finetune.sharding import check_override  # noqa: PLC0415

    spec = context.config.spec
    check_override(spec.distributed)
    check_model_folder(context.input_path("model"))
    from posttrain_finetune.data import prepared_rows  # noqa: PLC0415

    rows = prepared_rows(context)
    context.progress.update("loading libraries")
    from posttrain_finetune.train import train  # noqa: PLC0415

    with oom.naming(lambda: _lighter(spec)):
        return train(context, rows)


def _lighter(spec: FineTuneSpec) -> list[str]:
    """What to change when the memory does not suffice."""
    training, adapter = spec.training, spec.adapter
    sharded = spec.distributed.strategy in _UNQUANTIZABLE
    quantizable = adapter is not None and adapter.quantization is None and not sharded
    return oom.remedies(
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation,
        max_length=training.max_length,
        checkpointing=training.gradient_checkpointing,
        weights="all" if adapter is None else "adapter" if quantizable else "fixed",
    )


if __name__ == "__main__":
    sys.exit(run_rank(work))
