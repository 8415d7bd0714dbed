"""Every field that a FineTuneJob can set is read by somebody."""

from pathlib import Path
from typing import Any

import pytest
from posttrain_contract.distributed import Distributed
from posttrain_contract.stage import FineTuneStage
from support.readers import read_by_the_operator, read_by_the_supervisor
from support.recording import leaves, recorded
from support.tiny import context_in_process, finetune_config, mount, write_pairs

DISTRIBUTED = Distributed.parse({"processesPerNode": 2, "strategy": "zero2", "override": "{}"})
TRACKING = {"wandb": {"project": "tests", "mode": "offline"}, "tensorboard": True}


@pytest.mark.filterwarnings("default")
def test_every_field_is_read_by_the_trainer_or_the_operator(tiny_inputs: Path, tmp_path: Path) -> None:
    pairs: dict[str, Any] = {
        "method": "dpo",
        "dataset": {"uri": "pvc://posttrain/any", "format": "preference"},
        "dpo": {},
        "dataset_path": "pairs.jsonl",
    }
    fields: set[str] = set()
    seen = read_by_the_translation(DISTRIBUTED)
    for number, config in enumerate(
        (
            finetune_config(steps=1, adapter={"lora": {}}, tracking=TRACKING),
            finetune_config(steps=1, **pairs),
        )
    ):
        root = mount(tmp_path / str(number), tiny_inputs)
        write_pairs(root / "pairs.jsonl", tiny_inputs)
        fields |= set(leaves(config.spec))
        seen |= read_in_process(config, root) | read_by_the_operator(config.spec) | read_by_the_supervisor(config)
    parts = {field for field in fields if any(other.startswith(f"{field}.") for other in fields)}
    assert fields - parts - seen == set(), "a part that one of them leaves out is no field of its own"


def read_by_the_translation(distributed: Distributed) -> set[str]:
    """What splits weights wants several processes, so here it is translated without being carried out."""
    from posttrain_finetune.sharding import sharding_arguments

    seen: set[str] = set()
    assert sharding_arguments(recorded(distributed, seen, "distributed."), on_cpu=True)
    return seen


def read_in_process(config: FineTuneStage, root: Path) -> set[str]:
    """The fields that the trainer reads while it makes one step."""
    from posttrain_finetune.rank import work

    seen: set[str] = set()
    context = context_in_process(config.model_copy(update={"spec": recorded(config.spec, seen)}), root)
    assert work(context).metrics["steps"] == 1
    return seen
