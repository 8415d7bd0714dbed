"""Fine-tuning of all weights or of an adapter, with TRL."""

import re
from typing import Any, Final

from posttrain_contract import layout
from posttrain_contract.adapter import ADAPTER_INPUT
from posttrain_contract.stage import FineTuneStage
from posttrain_runtime.context import StageContext
from posttrain_runtime.ranks import RankOutcome
from posttrain_training import gang
from posttrain_training.models import load_model, quiet
from posttrain_training.preparation.prepared import load_prepared
from posttrain_training.preparation.templates import TEMPLATES
from posttrain_training.session import Session
from posttrain_training.tokenizers import load_tokenizer

from posttrain_finetune.adapters import exported, new_adapter, target_error, with_initial
from posttrain_finetune.data import Rows
from posttrain_finetune.description import described
from posttrain_finetune.methods import METHODS, Method

_TARGETS: Final = re.compile(r"target[ _]module", re.IGNORECASE)
"""How PEFT and TRL speak of modules that they do not adapt, such as a norm or lm_head."""


@gang.losing_peers()
def train(context: StageContext[FineTuneStage], rows: Rows) -> RankOutcome:
    """Runs one rank of the fine-tuning on the prepared ``rows`` to its end.

    Raises ``StageError`` and ``Preempted``.
    """
    quiet()
    spec = context.config.spec
    method = METHODS[spec.method]
    context.progress.update("loading model")
    tokenizer = load_tokenizer(
        context.input_path("model"),
        template=TEMPLATES.get(spec.dataset.template),
        plain=spec.dataset.format == "text" and spec.evaluation is None,
    )
    arguments = method.arguments(spec, output=context.folder / layout.CHECKPOINTS, on_cpu=context.config.run.gpus == 0)
    validation = None if rows.validation is None else load_prepared(rows.validation)
    session = Session(context, device=arguments.device, tokenizer=tokenizer, validation=validation)
    trainer = _trainer(context, method, arguments, tokenizer=tokenizer, rows=rows)
    step = session.run(trainer, figures=method.figures)
    result = exported(trainer, context)
    return session.finish(
        result.model,
        weights=result.weights,
        step=step,
        metrics=session.metrics(step=step),
        description=described(spec, rows),
    )


def _trainer(
    context: StageContext[FineTuneStage], method: Method, arguments: Any, *, tokenizer: Any, rows: Rows
) -> Any:
    spec = context.config.spec
    model = _model(context, device=arguments.device)
    adapter = new_adapter(spec.adapter, model)
    try:
        return method.trainer(
            model=model,
            args=arguments,
            train_dataset=load_prepared(rows.train),
            processing_class=tokenizer,
            peft_config=adapter,
            told=lambda: context.progress.update("computing the reference"),
            kept=context.work_area,
        )
    except ValueError as error:
        if spec.adapter is not None and _TARGETS.search(str(error)):
            raise target_error(spec.adapter, f"{gang.first_line(error)} Take all-linear, or other modules") from error
        raise


def _model(context: StageContext[FineTuneStage], *, device: Any) -> Any:
    """The model to train; with an adapter to go on from, that is on it already."""
    spec = context.config.spec
    quantization = spec.adapter.quantization if spec.adapter is not None else None
    model = load_model(context.input_path("model"), spec.training, quantization=quantization, device=device)
    if spec.adapter is None or spec.adapter.initial is None:
        return model
    return with_initial(model, context.input_path(ADAPTER_INPUT))
