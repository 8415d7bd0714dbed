"""``python -m posttrain_rl.rank``: the training process, started by the supervisor."""

import sys

from posttrain_contract.fitting import MORE, full_checkpointing, smaller_batches
from posttrain_contract.rl import RLSpec
from posttrain_contract.stage import RLStage
from posttrain_runtime import answers
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import RankOutcome, run_rank
from posttrain_training import oom


def work(context: StageContext[RLStage]) -> RankOutcome:
    """Runs the training to its end; data and model folder are looked at before the libraries are loaded."""
    from posttrain_training.folders import check_model_folder  # noqa: PLC0415 - after the configuration was read
    from posttrain_training.tasks import load_tasks  # noqa: PLC0415

    spec = context.config.spec
    context.progress.update("loading data")
    check_model_folder(context.input_path("model"))
    tasks = load_tasks(
        context.input_path("dataset"),
        field="spec.dataset",
        dataset=spec.dataset,
        readers=[answers.reader(reward.answer, reward.pattern) for reward in spec.rewards],
    )
    context.progress.update("loading libraries")
    from posttrain_rl.train import train  # noqa: PLC0415

    with oom.naming(lambda: _lighter(spec)):
        return train(context, tasks)


def _lighter(spec: RLSpec) -> str:
    """What to change when the memory does not suffice."""
    kinds = smaller_batches(spec.training), full_checkpointing(spec.training)
    changes = [change.text for kind in kinds if (change := next(kind, None)) is not None]
    return f"each of these needs less: {'; '.join([*changes, MORE])}"


if __name__ == "__main__":
    sys.exit(run_rank(work))
