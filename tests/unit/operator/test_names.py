"""Names of children: readable, unique, and short enough for what controllers append."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_operator import names
from posttrain_operator.api.resources import KINDS, NAME_RULE
from posttrain_operator.settings import STAGES

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
OBJECT_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True).filter(NAME_RULE.check)
STAGES_OF_CHILDREN = st.sampled_from(STAGES)
ATTEMPTS = st.integers(min_value=1, max_value=99_999)


def test_a_short_name_is_readable() -> None:
    assert names.child("sft", "finetune", 2) == "sft-finetune-2"
    assert names.config_map("sft", "finetune", "content") == "sft-finetune-ed7002b439"


def test_a_long_name_keeps_its_head_and_has_a_hash() -> None:
    name = names.child("a-very-long-name-of-a-fine-tuning-run-for-mathematics", "finetune", 12)
    assert name == "a-very-long-name-of-a-fine-a78f3fdd3b-finetune-12"
    assert len(name) <= names.MAX_LENGTH


@settings(deadline=None)
@given(OBJECT_NAMES, STAGES_OF_CHILDREN, ATTEMPTS)
def test_a_name_is_a_dns_label_that_leaves_room_for_what_controllers_append(name: str, stage: str, number: int) -> None:
    for made in (names.child(name, stage, number), names.config_map(name, stage, str(number))):
        assert DNS_LABEL.fullmatch(made)
        assert len(made) <= names.MAX_LENGTH
        assert len(f"{made}-worker-1023") <= 63


@settings(deadline=None)
@given(OBJECT_NAMES, STAGES_OF_CHILDREN, ATTEMPTS)
def test_a_name_is_the_same_every_time(name: str, stage: str, number: int) -> None:
    assert names.child(name, stage, number) == names.child(name, stage, number)
    assert names.config_map(name, stage, "text") == names.config_map(name, stage, "text")


@settings(deadline=None)
@given(st.lists(st.tuples(OBJECT_NAMES, STAGES_OF_CHILDREN, ATTEMPTS), unique=True, min_size=2, max_size=10))
def test_different_children_have_different_names(children: list[tuple[str, str, int]]) -> None:
    assert len({names.child(*child) for child in children}) == len(children)


@settings(deadline=None)
@given(st.text(alphabet="ab-", min_size=40, max_size=62), STAGES_OF_CHILDREN, ATTEMPTS)
def test_long_names_with_the_same_head_stay_apart(head: str, stage: str, number: int) -> None:
    assert names.child(f"a{head}1", stage, number) != names.child(f"a{head}2", stage, number)


@settings(deadline=None)
@given(OBJECT_NAMES, st.lists(st.text(max_size=20), unique=True, min_size=2, max_size=5))
def test_a_config_map_is_named_by_its_content(name: str, contents: list[str]) -> None:
    assert len({names.config_map(name, "finetune", content) for content in contents}) == len(contents)


def test_objects_of_different_kinds_may_share_a_name() -> None:
    stages = [kind.stage for kind in KINDS.values()]
    assert len({names.child("math", stage, 1) for stage in [*stages, "serve"]}) == len(KINDS) + 1
