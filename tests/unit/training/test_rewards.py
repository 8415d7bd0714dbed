"""The exact-match reward, and tasks whose gold answer cannot be read."""

import json
from pathlib import Path

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.inputs import TaskDataset
from posttrain_contract.rl import Reward
from posttrain_rl.rewards import reward_functions
from posttrain_runtime import answers
from posttrain_runtime.errors import StageError
from posttrain_training.tasks import load_tasks

END = 2


@pytest.mark.parametrize(
    ("text", "ids", "reward"),
    [
        ("7+1=8\n#### 8", [5, END], 1.0),
        ("#### 8.0", [5, END], 1.0),
        ("#### 9", [5, END], 0.0),
        ("8", [5, END], 0.0),
        ("#### 7 or 8", [5, END], 0.0),
        ("#### 8", [5, 6], 0.0),
        ("", [], 0.0),
    ],
)
def test_only_a_finished_completion_with_the_marked_gold_answer_is_rewarded(
    text: str, ids: list[int], reward: float
) -> None:
    (exact_match,) = reward_functions([Reward(name="exact-match")], end_tokens=[END])
    completion = [{"role": "assistant", "content": text}]
    assert exact_match(completions=[completion], completion_ids=[ids], gold=["8"], prompts=None) == [reward]


@pytest.mark.parametrize(
    ("reward", "text", "gold"),
    [
        (Reward(name="exact-match", answer="boxed"), "so \\boxed{x^{2}}", "x^2"),
        (Reward(name="exact-match", answer="choice"), "Answer: (B)", "b"),
        (Reward(name="exact-match", answer="regex", pattern=r"<a>(.*?)</a>"), "<a>Tokyo</a>", "Tokyo"),
    ],
)
def test_every_way_to_find_an_answer_can_reward(reward: Reward, text: str, gold: str) -> None:
    (exact_match,) = reward_functions([reward], end_tokens=[END])
    completions = [[{"role": "assistant", "content": text}], [{"role": "assistant", "content": "no answer"}]]
    assert exact_match(completions=completions, completion_ids=[[END], [END]], gold=[gold, gold]) == [1.0, 0.0]


def test_a_gold_answer_that_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    rows = [{"prompt": "1+1?", "answer": "2"}, {"prompt": "why?", "answer": "because"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = TaskDataset(uri="pvc://posttrain/any")
    with pytest.raises(StageError) as caught:
        load_tasks(path, field="spec.dataset", dataset=dataset, readers=[answers.reader("gsm8k")])
    assert caught.value.code is ExitCode.DATA
    assert "spec.dataset.columns.answer: row 2" in caught.value.message
    assert "'because'" in caught.value.message
