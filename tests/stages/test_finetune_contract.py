"""Every field that a FineTuneJob can set is read by somebody."""

from pathlib import Path

import pytest
from support.recording import RecordedConfig, leaves
from support.tiny import context_in_process, finetune_config, mount

READ_BY_THE_OPERATOR = {
    "method",
    "model.from_",
    "model.uri",
    "dataset.from_",
    "dataset.uri",
    "evaluation.generate.dataset.from_",
    "evaluation.generate.dataset.uri",
    "distributed.nodes",
    "distributed.processes_per_node",
}


@pytest.mark.filterwarnings("default")
def test_every_field_is_read_by_the_trainer_or_the_operator(tiny_inputs: Path, tmp_path: Path) -> None:
    from posttrain_finetune.rank import work

    root = mount(tmp_path / "recorded", tiny_inputs)
    config = finetune_config(steps=1, adapter={})
    seen: set[str] = set()
    outcome = work(context_in_process(RecordedConfig(config, seen), root))
    assert outcome.step == 1
    assert set(leaves(config.spec)) == seen | READ_BY_THE_OPERATOR
    assert not seen & READ_BY_THE_OPERATOR
