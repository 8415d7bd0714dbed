"""From records of every format to conversations, and what is said of records that are none."""

from typing import Any

import pytest
from posttrain_contract.examples import ExampleDataset
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_training.preparation.formats import Demonstration, Example, Pair, PlainText, Reader

PLACE = "part.jsonl:7"


def read(record: dict[str, Any], **dataset: Any) -> Example:
    spec = ExampleDataset.parse({"uri": "pvc://data/any", **dataset})
    return Reader(spec, field="spec.dataset").read(record, PLACE)


def chat(*messages: tuple[str, str]) -> Demonstration:
    return Demonstration(tuple({"role": role, "content": content} for role, content in messages))


ASKED = chat(("user", "2+2?"), ("assistant", "4"))
ASK, RIGHT, WRONG_ANSWER = (
    {"role": role, "content": content} for role, content in (("user", "2+2?"), ("assistant", "4"), ("assistant", "5"))
)
PAIR = Pair((ASK,), "4", "5")
FORMATS: list[tuple[str, dict[str, Any], Example]] = [
    ("prompt-completion", {"prompt": "2+2?", "completion": 4, "other": None}, ASKED),
    ("question-answer", {"question": "2+2?", "answer": "4"}, ASKED),
    ("alpaca", {"instruction": "2+2?", "input": "", "output": "4"}, ASKED),
    ("alpaca", {"instruction": "2+2?", "output": "4"}, ASKED),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2 and 2", "output": "4"},
        chat(("user", "Add.\n\n2 and 2"), ("assistant", "4")),
    ),
    (
        "dolly",
        {"instruction": "Add.", "context": "2 and 2", "response": "4", "category": "qa"},
        chat(("user", "Add.\n\n2 and 2"), ("assistant", "4")),
    ),
    ("wizardlm", {"instruction": "2+2?", "output": "4"}, ASKED),
    (
        "messages",
        {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]},
        ASKED,
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be short."},
                {"from": "human", "value": "2+2?"},
                {"from": "gpt", "value": "4"},
            ]
        },
        chat(("system", "Be short."), ("user", "2+2?"), ("assistant", "4")),
    ),
    ("text", {"text": "Once upon a time"}, PlainText("Once upon a time")),
    (
        "preference",
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        PAIR,
    ),
    ("preference", {"chosen": [ASK, RIGHT], "rejected": [ASK, WRONG_ANSWER]}, PAIR),
    # As in datasets whose lists begin with what stands in the prompt's column too.
    ("preference", {"prompt": "2+2?", "chosen": [ASK, RIGHT], "rejected": [ASK, WRONG_ANSWER]}, PAIR),
    ("preference", {"prompt": "2+2?", "chosen": [RIGHT], "rejected": [WRONG_ANSWER]}, PAIR),
    ("preference", {"prompt": [ASK], "chosen": [RIGHT], "rejected": [WRONG_ANSWER]}, PAIR),
    (
        "preference",
        {"chosen": [ASK, RIGHT, ASK, RIGHT], "rejected": [ASK, RIGHT, ASK, WRONG_ANSWER]},
        Pair((ASK, RIGHT, ASK), "4", "5"),
    ),
]


@pytest.mark.parametrize(("form", "record", "example"), FORMATS)
def test_every_format_is_read(form: str, record: dict[str, Any], example: Example) -> None:
    assert read(record, format=form) == example


def test_columns_may_have_other_names() -> None:
    columns = {"prompt": "q", "completion": "a", "system": "s"}
    expected = chat(("system", "Be short."), ("user", "2+2?"), ("assistant", "4"))
    assert read({"q": "2+2?", "a": "4", "s": "Be short."}, columns=columns) == expected
    assert read({"q": "2+2?", "a": "4", "s": None}, columns=columns) == ASKED


def test_a_pair_of_message_lists_may_have_a_system_message_and_is_cleaned() -> None:
    record = {"s": "Be short.", "good": [ASK, {**RIGHT, "content": "<<2+2=4>>4"}], "bad": [ASK, WRONG_ANSWER]}
    columns = {"system": "s", "chosen": "good", "rejected": "bad"}
    system = {"role": "system", "content": "Be short."}
    assert read(record, format="preference", columns=columns, cleaning="gsm8k") == Pair((system, ASK), "4", "5")


def test_an_answer_of_which_cleaning_leaves_nothing_is_empty() -> None:
    for form, record in (
        ("question-answer", {"question": "2+2?", "answer": " <<2+2=4>>"}),
        ("messages", {"messages": [ASK, {**RIGHT, "content": "<<2+2=4>>"}]}),
    ):
        with pytest.raises(StageError, match=r"part.jsonl:7.* empty") as caught:
            read(record, format=form, cleaning="gsm8k")
        assert caught.value.reason == "EmptyText"


def test_calculator_annotations_are_removed_from_answers_alone() -> None:
    record = {"question": "What is <<2+2=4>>?", "answer": "It is <<2+2=4>>4.\n#### 4"}
    cleaned = read(record, format="question-answer", cleaning="gsm8k")
    assert cleaned == chat(("user", "What is <<2+2=4>>?"), ("assistant", "It is 4.\n#### 4"))


ANSWERED = {"role": "assistant", "content": "4"}
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("prompt-completion", {"prompt": "a"}, "completion", "part.jsonl:7 has no column 'completion'; it has prompt"),
    ("prompt-completion", {"prompt": ["a"], "completion": "b"}, "prompt", "column 'prompt' of part.jsonl:7 is list"),
    ("prompt-completion", {"prompt": None, "completion": "b"}, "prompt", "column 'prompt' of part.jsonl:7 is NoneType"),
    ("prompt-completion", {"prompt": True, "completion": "b"}, "prompt", "column 'prompt' of part.jsonl:7 is bool"),
    (
        "prompt-completion",
        {"prompt": "a", "completion": " \n"},
        "completion",
        "column 'completion' of part.jsonl:7 is empty",
    ),
    ("question-answer", {"question": "", "answer": "4"}, "prompt", "column 'question' of part.jsonl:7 is empty"),
    (
        "alpaca",
        {"instruction": "a", "input": 3.5, "output": {}},
        "completion",
        "column 'output' of part.jsonl:7 is dict",
    ),
    ("alpaca", {"instruction": "a", "input": [], "output": "b"}, "input", "column 'input' of part.jsonl:7 is list"),
    ("text", {"content": "a"}, "text", "part.jsonl:7 has no column 'text'; it has content"),
    (
        "preference",
        {"prompt": "a", "chosen": "b"},
        "rejected",
        "part.jsonl:7 has no column 'rejected'; it has chosen, prompt",
    ),
    (
        "preference",
        {"prompt": "a", "chosen": "", "rejected": "c"},
        "chosen",
        "column 'chosen' of part.jsonl:7 is empty",
    ),
    ("messages", {"conversations": []}, "messages", "part.jsonl:7 has no column 'messages'; it has conversations"),
    ("messages", {"messages": []}, "messages", "column 'messages' of part.jsonl:7 is no list of messages"),
    ("messages", {"messages": "hi"}, "messages", "column 'messages' of part.jsonl:7 is no list of messages"),
    ("messages", {"messages": [{"role": "user"}, ANSWERED]}, "messages", "part.jsonl:7, message 1 has no text"),
    ("messages", {"messages": ["hi", ANSWERED]}, "messages", "part.jsonl:7, message 1 has no text"),
    (
        "messages",
        {"messages": [{"role": "human", "content": "a"}, ANSWERED]},
        "messages",
        "part.jsonl:7, message 1 is of 'human'; the roles are system, user, assistant, tool",
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "a"}]},
        "messages",
        "the last message of part.jsonl:7 is of 'user'",
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]},
        "messages",
        "part.jsonl:7, message 2, an answer, is empty",
    ),
    (
        "sharegpt",
        {"conversations": [{"role": "user", "content": "a"}]},
        "messages",
        "part.jsonl:7, message 1 has no text",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "bing", "value": "a"}]},
        "messages",
        "part.jsonl:7, message 1 is of 'bing'; the roles are human, user, gpt, assistant, model, system, tool",
    ),
    (
        "prompt-completion",
        {"prompt": "a", "completion": float("nan")},
        "completion",
        "column 'completion' of part.jsonl:7 is nan, which stands for no text",
    ),
    (
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": " "},
        "rejected",
        "column 'rejected' of part.jsonl:7 is empty",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "\n"}]},
        "messages",
        "part.jsonl:7, message 2, an answer, is empty",
    ),
    (
        "preference",
        {"chosen": [ASK, RIGHT], "rejected": "5"},
        "rejected",
        "column 'rejected' of part.jsonl:7 is no list of messages; each message is {role, content}",
    ),
    (
        "preference",
        {"chosen": [ASK, RIGHT], "rejected": [{**ASK, "content": "3+3?"}, WRONG_ANSWER]},
        "rejected",
        "column 'rejected' of part.jsonl:7 answers another conversation than column 'chosen'",
    ),
    (
        "preference",
        {"chosen": [ASK], "rejected": [ASK, WRONG_ANSWER]},
        "chosen",
        "the last message of part.jsonl:7 is of 'user'; it must be the assistant's answer",
    ),
    (
        "preference",
        {"chosen": [ASK, RIGHT], "rejected": [ASK, {"role": "assistant", "content": ""}]},
        "rejected",
        "part.jsonl:7, message 2, an answer, is empty",
    ),
    (
        "preference",
        {"chosen": [ASK, {"from": "gpt", "value": "4"}], "rejected": [ASK, WRONG_ANSWER]},
        "chosen",
        "part.jsonl:7, message 2 has no text under 'role' and 'content'",
    ),
    (
        "preference",
        {"chosen": [RIGHT], "rejected": [WRONG_ANSWER]},
        "prompt",
        "part.jsonl:7 has no column 'prompt'; it has chosen, rejected",
    ),
]


@pytest.mark.parametrize(("form", "record", "column", "message"), WRONG)
def test_a_record_that_is_no_example_is_told_with_its_place_and_column(
    form: str, record: dict[str, Any], column: str, message: str
) -> None:
    with pytest.raises(StageError) as caught:
        read(record, format=form)
    assert caught.value.code is ExitCode.DATA
    assert caught.value.message.startswith(f"spec.dataset.columns.{column}: {message}")
