"""Which tokens are learned: the answers, as the template writes them, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_training.preparation.encoding import IGNORED, Encoder
from posttrain_training.preparation.formats import Demonstration, Example, Pair, PlainText
from posttrain_training.preparation.rendering import Renderer
from posttrain_training.preparation.templates import TEMPLATES
from support.tiny_tokenizer import save_tokenizer

THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes more into an answer than the answer says."""
STRIPS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.strip() }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.last or m.role != 'assistant' else 'an answer' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Renders a conversation's beginning otherwise once there is more."""
SINGLE = (("user", "What is two plus two?"), ("assistant", "The answer is 4."))
SEVERAL = (("system", "Be short."), *SINGLE, ("user", "The answer is 4."), ("assistant", "Yes:\n\n 4 "))


def chat(messages: tuple[tuple[str, str], ...]) -> Demonstration:
    return Demonstration(tuple({"role": role, "content": content} for role, content in messages))


def encoder(tokenizer: Any, *, max_length: int = 512, learn_all: bool = False) -> Encoder:
    return Encoder(tokenizer, Renderer(tokenizer, field="spec.dataset"), max_length=max_length, learn_all=learn_all)


def learned(tokenizer: Any, example: Example, **options: Any) -> tuple[str, str]:
    """The whole text of a row, and of it the parts that are learned."""
    (row,) = encoder(tokenizer, **options).encode([("part.jsonl:1", example)])
    assert row is not None
    ids, labels = row.columns["input_ids"], row.columns["labels"]
    assert ((labels == ids) | (labels == IGNORED)).all()
    return tokenizer.decode(ids), tokenizer.decode(ids[labels != IGNORED])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [SINGLE, SEVERAL], ids=["one turn", "several turns"])
def test_our_templates_mark_what_generation_tags_mark(
    tmp_path: Path, name: Any, messages: tuple[tuple[str, str], ...]
) -> None:
    tokenizer = save_tokenizer(tmp_path, template=TEMPLATES[name])
    conversation = list(chat(messages).messages)
    marked = tokenizer.apply_chat_template(
        conversation, return_assistant_tokens_mask=True, return_dict=True, add_special_tokens=False
    )
    text, answers = learned(tokenizer, chat(messages))
    assert text == tokenizer.decode(marked["input_ids"])
    tagged = [token for token, one in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if one]
    assert answers.replace("\n", "").replace(" ", "") == tokenizer.decode(tagged).replace("\n", "").replace(" ", "")
    assert tokenizer.eos_token in answers, "the model has to learn where to stop"


def test_what_a_template_writes_before_an_answer_is_learned_when_the_model_writes_it(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, template=THINKS)
    _, answers = learned(tokenizer, chat(SEVERAL))
    assert answers == (
        "<think>\n\n</think>\n\nThe answer is 4.<|im_end|>\n<think>\n\n</think>\n\nYes:\n\n 4 <|im_end|>\n"
    )


def test_answers_are_found_although_the_template_changes_them(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, template=STRIPS)
    assert learned(tokenizer, chat(SEVERAL))[1] == "The answer is 4.<|im_end|>\nYes:\n\n 4<|im_end|>\n"


def test_a_template_that_nobody_can_tell_answers_by_is_refused_with_the_way_out(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, template=FORGETS)
    with pytest.raises(StageError) as caught:
        learned(tokenizer, chat(SEVERAL))
    assert (caught.value.code, caught.value.reason) == (ExitCode.MODEL, "TemplateUnusable")
    assert "part.jsonl:1" in caught.value.message
    assert caught.value.message.endswith("take template: chatml, or loss: all")
    assert learned(tokenizer, chat(SEVERAL), learn_all=True)[1].count("<|im_end|>") == len(SEVERAL)


def test_a_template_that_refuses_a_conversation_names_its_row(tmp_path: Path) -> None:
    picky = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    tokenizer = save_tokenizer(tmp_path, template=picky + "{{ m.content }}|{% endfor %}")
    with pytest.raises(StageError) as caught:
        encoder(tokenizer).encode([("part.jsonl:1", chat(SINGLE)), ("part.jsonl:2", chat(SEVERAL))])
    assert "cannot render part.jsonl:2 (no system here)" in caught.value.message


def test_plain_text_is_learned_whole_with_an_end(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, template=None)
    plain = Encoder(tokenizer, None, max_length=64, learn_all=False)
    (row,) = plain.encode([("part.jsonl:1", PlainText("Tom has books."))])
    assert row is not None
    assert tokenizer.decode(row.columns["labels"]) == "Tom has books.<|im_end|>"


def test_long_rows_are_cut_and_those_without_room_for_an_answer_are_none(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, template=TEMPLATES["chatml"])
    (whole,) = encoder(tokenizer).encode([("a:1", chat(SINGLE))])
    assert whole is not None
    prompt = int((whole.columns["labels"] == IGNORED).sum())
    (cut,) = encoder(tokenizer, max_length=prompt + 2).encode([("a:1", chat(SINGLE))])
    assert cut is not None
    assert (cut.columns["labels"] != IGNORED).sum() == 2
    assert encoder(tokenizer, max_length=prompt).encode([("a:1", chat(SINGLE))]) == [None]


def test_a_pair_has_its_prompt_once_and_both_answers(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, template=TEMPLATES["chatml"])
    pair = Pair(({"role": "user", "content": "What is two plus two?"},), "The answer is 4.", "The answer is 5.")
    (row,) = encoder(tokenizer).encode([("a:1", pair)])
    assert row is not None
    prompt, chosen, rejected = (
        tokenizer.decode(row.columns[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected")
    )
    assert prompt == "<|im_start|>user\nWhat is two plus two?<|im_end|>\n<|im_start|>assistant\n"
    assert (chosen, rejected) == ("The answer is 4.<|im_end|>\n", "The answer is 5.<|im_end|>\n")
    assert encoder(tokenizer, max_length=5).encode([("a:1", pair)]) == [None]
