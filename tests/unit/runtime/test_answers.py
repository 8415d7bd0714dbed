"""The final answer of a text: what counts, what equals what, and what is no answer."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posttrain_runtime import answers

GSM8K = Path(__file__).resolve().parents[4] / "shared" / "data" / "gsm8k"
GSM8K_ROWS = 8_792

EIGHTEEN = [
    "#### 18",
    "####18",
    "#### 18.",
    "#### 18.0",
    "#### 18.00",
    "#### $18",
    "#### $18.00.",
    "#### 18$",
    "#### 18%",
    "#### 18\\%",
    "#### **18**",
    "**#### 18**",
    "#### +18",
    "#### 18 dollars",
    "#### 18個",
    "#### 18 個です",
    "#### \uff11\uff18",
    "#### 36/2",
    "#### £18",
    "#### ¥18",
    "#### 18\nThat was easy, 99 more like it.",
    "#### 17\nNo, wait.\n#### 18",
    "<think>#### 5</think>\n#### 18",
    "How many, 3 or 4? It is 16 - 3 + 5.\n#### 18",
    "The equations: 9*2=18\n#### 18\n",
    "\\boxed{18}",
    "so \\boxed{17}, no, \\boxed{18}.",
    "\\boxed{\\$18}",
    "\\boxed{18\\text{ dollars}}",
    "\\boxed{18 \\text{ of the }}",
    "\\boxed{{18}}",
    "\\boxed{\\text{18}}",
    "\\boxed{\\frac{36}{2}}",
    "\\boxed{18\\,\\%}",
    "\\boxed{18} and then an open one: \\boxed{5",
    "x" * 200_000 + "\n#### 18",
]
OTHER = [
    ("#### 1,234", Fraction(1234)),
    ("#### 1 234", Fraction(1234)),
    ("#### 1,234,567.5", Fraction(2469135, 2)),
    ("\\boxed{1{,}234}", Fraction(1234)),
    ("#### 192,000,000", Fraction(192_000_000)),
    ("#### -5", Fraction(-5)),
    ("#### \u22125", Fraction(-5)),
    ("#### \u20135", Fraction(-5)),
    ("#### -$5", Fraction(-5)),
    ("#### $-5", Fraction(-5)),
    ("#### .5", Fraction(1, 2)),
    ("#### 0.5", Fraction(1, 2)),
    ("#### -.5", Fraction(-1, 2)),
    ("#### 1/2", Fraction(1, 2)),
    ("\\boxed{\\frac12}", Fraction(1, 2)),
    ("\\boxed{-\\frac{1}{2}}", Fraction(-1, 2)),
    ("\\boxed{\\dfrac{3}{4}}", Fraction(3, 4)),
]
NO_ANSWER = [
    "",
    "####",
    "#### ",
    "####\n18",
    "18",
    "The answer is 18.",
    "#### eighteen",
    "#### 16 17 18",
    "#### 17 or 18",
    "#### 18, 19",
    "#### 18,5",
    "#### 1,23",
    "#### 12,34,567",
    "#### 1.2.3",
    "#### 3 4/5",
    "#### 5/0",
    "#### 18 = 9*2",
    "#### B2",
    "#### 18 then\n#### none",
    "<think>#### 18</think> I do not know",
    "\\boxed{}",
    "\\boxed{17 or 18}",
    "\\boxed{18",
]


@pytest.mark.parametrize("text", EIGHTEEN)
def test_the_marked_number_is_the_answer(text: str) -> None:
    assert answers.extract(text) == 18


@pytest.mark.parametrize(("text", "value"), OTHER)
def test_numbers_are_exact(text: str, value: Fraction) -> None:
    assert answers.extract(text) == value


@pytest.mark.parametrize("text", NO_ANSWER)
def test_without_exactly_one_marked_number_there_is_no_answer(text: str) -> None:
    assert answers.extract(text) is None


@pytest.mark.parametrize("text", ["18", " 18 ", "$18", "18.0", "#### 18", "\\boxed{18}"])
def test_a_gold_answer_needs_no_mark(text: str) -> None:
    assert answers.gold(text) == 18


@pytest.mark.parametrize("text", ["", "eighteen", "17 or 18", "the answer is in #### the text"])
def test_a_gold_answer_without_one_number_is_none(text: str) -> None:
    assert answers.gold(text) is None


@given(value=st.integers(-(10**12), 10**12), prefix=st.text(max_size=40), suffix=st.text(max_size=40))
def test_any_integer_is_found_after_the_mark_in_either_spelling(value: int, prefix: str, suffix: str) -> None:
    ending = "\n" + suffix.replace("#", "").replace("</think>", "")
    assert answers.extract(f"{prefix}\n#### {value}{ending}") == value
    assert answers.extract(f"{prefix}\n#### {value:,}{ending}") == value


@given(text=st.text(max_size=200))
def test_no_text_breaks_the_extraction(text: str) -> None:
    answers.extract(f"#### {text}")
    answers.extract(f"\\boxed{{{text}}}")


def test_every_gsm8k_gold_answer_parses_and_equals_its_own_solution() -> None:
    if not GSM8K.is_dir():
        pytest.skip(f"GSM8K is not at {GSM8K}")
    texts = [(GSM8K / name).read_text(encoding="utf-8") for name in ("train.jsonl", "test.jsonl")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    assert len(rows) == GSM8K_ROWS
    for row in rows:
        written = row["answer"].rpartition("####")[2].strip()
        assert answers.gold(row["answer"]) == int(written.replace(",", ""))
        assert answers.gold(written) == answers.extract(row["answer"])
