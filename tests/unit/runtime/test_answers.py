"""The final answer of a text: what counts, what equals what, and what is no answer."""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from posttrain_contract.inputs import AnswerFormat
from posttrain_runtime import answers, patterns

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
    "\\boxed{1\\frac{1}{2}}",
    "#### " + "9" * 5000,
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


BOXED = answers.reader("boxed")
HALF, FORTY = Fraction(1, 2), Fraction(40)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("\\frac12", HALF),
        ("\\dfrac{1}{2}", HALF),
        ("0.50", HALF),
        ("1/2", HALF),
        ("40", FORTY),
        ("40.", FORTY),
        ("\\$40", FORTY),
        ("40\\%", FORTY),
        ("40\\text{ km}", FORTY),
        ("40\\,\\mathrm{cm}", FORTY),
        ("\\text{40}", FORTY),
        ("$40$", FORTY),
        ("1,234", Fraction(1234)),
        ("1{,}234", Fraction(1234)),
        ("\u22127", Fraction(-7)),
        ("2x", "2x"),
        ("2\\pi", "2\\pi"),
        ("5\u00b2", "5\u00b2"),
        ("1\\frac{1}{2}", "1\\frac{1}{2}"),
        ("x^{2} + 1", "x^2+1"),
        ("\\left(1,\\ 2\\right)", "(1,2)"),
        ("\\tfrac{\\pi}{2}", "\\frac{\\pi}{2}"),
        ("\\sqrt2", "\\sqrt{2}"),
        ("\\text{Tokyo}", "Tokyo"),
        ("\\leftarrow", "\\leftarrow"),
    ],
)
def test_a_box_is_a_number_or_else_its_text_without_meaningless_spelling(content: str, value: Fraction | str) -> None:
    assert BOXED.extract(f"First \\boxed{{3}}, then \\boxed{{{content}}}.") == value
    assert BOXED.gold(content) == value


@pytest.mark.parametrize("text", ["", "40", "#### 40", "\\boxed{}", "\\boxed{40", "<think>\\boxed{40}</think>"])
def test_without_a_box_there_is_no_boxed_answer(text: str) -> None:
    assert BOXED.extract(text) is None


CHOICE = answers.reader("choice")


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "B.",
        "(B)",
        "**B**",
        "B) Paris",
        "I think so.\n\nB. Paris",
        "Answer: B",
        "Answer: b",
        "answer = B",
        "**Answer:** (B) Paris",
        "ANSWER:\nB",
        "The answer is B",
        "The answer is (b).",
        "The answer is: B.",
        "So the correct option is B, because A is wrong.",
        "The best choice would be B!",
        "The answer is A. No, wait, the answer is B.",
        "A) Rome\nB) Paris\nAnswer: B",
        "\u7b54\u3048\u306fB\u3067\u3059\u3002",
        "\u6b63\u89e3\u306f\uff08\uff22\uff09",
        "\\boxed{B}",
        "\\boxed{b}",
        "\\boxed{\\text{B}}",
        "\\boxed{(B)}",
        "\\boxed{B) Paris}",
        "the answer is A, or rather $\\boxed{B}$",
        "<think>Answer: A</think>Answer: B",
    ],
)
def test_a_letter_is_found_as_models_write_it(text: str) -> None:
    assert CHOICE.extract(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "K",
        "AB",
        "Paris",
        "a",
        "A good question.",
        "A) Rome\nB) Paris",
        "Answer: A or B",
        "Answer: A, B",
        "Answer: A B",
        "Answer: (A) and (B)",
        "The answer is not B",
        "The answer is A matter of taste",
        "The answer is I do not know",
        "Answer: B2",
        "\\boxed{A, B}",
        "\\boxed{AB}",
        "\\boxed{a bird}",
        "\\boxed{}",
        "Answer: B, so \\boxed{12}",
    ],
)
def test_an_ambiguous_choice_is_none(text: str) -> None:
    assert CHOICE.extract(text) is None


@pytest.mark.parametrize("text", ["B", "b", " (B) ", "B) Paris", "Answer: B", "\\boxed{B}"])
def test_the_gold_letter_may_be_bare(text: str) -> None:
    assert CHOICE.gold(text) == "B"


def test_a_pattern_finds_its_last_match_and_numbers_are_numbers() -> None:
    reader = answers.reader("regex", r"<answer>(.*?)</answer>")
    assert reader.extract("<answer>Rome</answer> no, <answer> Paris </answer>") == "Paris"
    assert reader.matches("<answer>18.0</answer>", "18")
    assert reader.matches("<answer>18.0</answer>", "as <answer>$18</answer>")
    assert not reader.matches("18", "18")
    assert reader.extract("<answer> </answer>") is None
    assert reader.extract("<think><answer>5</answer></think>") is None


def test_a_pattern_that_would_run_for_ever_finds_nothing_in_time(caplog: pytest.LogCaptureFixture) -> None:
    reader = answers.reader("regex", r"(a|aa)+c(?:x)?")
    started = time.process_time()
    assert reader.extract("a" * 200 + "b") is None
    assert reader.extract("a" * 200 + "b") is None
    assert time.process_time() - started < 2 * patterns.SECONDS + 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "took over" in caplog.text


@pytest.mark.parametrize("answer", ["gsm8k", "boxed", "choice", "regex"])
@given(text=st.text(st.characters() | st.sampled_from("\\boxed{}()#<>/$% 0123456789ABCanswer is:.,"), max_size=200))
def test_no_text_breaks_a_reader(answer: AnswerFormat, text: str) -> None:
    assume("</think>" not in text)  # what is before it is no answer, so a text with it is not its own
    reader = answers.reader(answer, "(.+)" if answer == "regex" else None)
    for written in (text, f"\\boxed{{{text}}}", f"Answer: {text}", f"#### {text}"):
        reader.extract(written)
        assert reader.gold(written) is None or reader.matches(written, written) or reader.extract(written) is None


@pytest.mark.parametrize("answer", ["gsm8k", "boxed", "choice"])
@pytest.mark.parametrize(
    "text", ["\\boxed{" * 20_000, "answer: " + " " * 200_000, "answer: B or " * 20_000, "#### $" + " " * 200_000 + "x"]
)
def test_a_long_text_takes_no_long_time(answer: AnswerFormat, text: str) -> None:
    started = time.process_time()
    answers.reader(answer).extract(text)
    assert time.process_time() - started < 10


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
