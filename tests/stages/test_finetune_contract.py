"""Every field that a FineTuneJob can set is read by somebody."""

from pathlib import Path

import pytest
from support.readers import read_by_the_operator
from support.recording import leaves, recorded
from support.tiny import context_in_process, finetune_config, mount


@pytest.mark.filterwarnings("default")
def test_every_field_is_read_by_the_trainer_or_the_operator(tiny_inputs: Path, tmp_path: Path) -> None:
    from posttrain_finetune.rank import work

    root = mount(tmp_path / "recorded", tiny_inputs)
    config = finetune_config(steps=1, adapter={})
    seen: set[str] = set()
    outcome = work(context_in_process(config.model_copy(update={"spec": recorded(config.spec, seen)}), root))
    assert outcome.metrics["steps"] == 1
    assert set(leaves(config.spec)) == seen | read_by_the_operator(config.spec)
