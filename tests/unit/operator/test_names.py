"""Names of children: readable, unique, and short enough for what controllers append."""

import re

from hypothesis import given
from hypothesis import strategies as st
from posttrain_operator import names
from posttrain_operator.api.resources import NAME_RULE
from posttrain_operator.labels import Role

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
OBJECT_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True).filter(NAME_RULE.check)
ROLES = st.sampled_from([role.value for role in Role])
ATTEMPTS = st.integers(min_value=1, max_value=99_999)


def test_a_short_name_is_readable() -> None:
    assert names.child("sft", "trainer", 2) == "sft-trainer-2"
    assert names.config_map("sft", "trainer", "content") == "sft-trainer-ed7002b439"


def test_a_long_name_keeps_its_head_and_has_a_hash() -> None:
    name = names.child("a-very-long-name-of-a-fine-tuning-run-for-mathematics", "trainer", 12)
    assert name == "a-very-long-name-of-a-f-c38b39b8a2-trainer-12"[:50] or name.startswith("a-very-long-name-of-a-")
    assert name.endswith("-trainer-12")
    assert len(name) <= names.MAX_LENGTH


@given(OBJECT_NAMES, ROLES, ATTEMPTS)
def test_a_name_is_a_dns_label_that_leaves_room_for_what_controllers_append(name: str, role: str, number: int) -> None:
    for made in (names.child(name, role, number), names.config_map(name, role, str(number))):
        assert DNS_LABEL.fullmatch(made)
        assert len(made) <= names.MAX_LENGTH
        assert len(f"{made}-worker-1023") <= 63


@given(OBJECT_NAMES, ROLES, ATTEMPTS)
def test_a_name_is_the_same_every_time(name: str, role: str, number: int) -> None:
    assert names.child(name, role, number) == names.child(name, role, number)
    assert names.config_map(name, role, "text") == names.config_map(name, role, "text")


@given(st.lists(st.tuples(OBJECT_NAMES, ROLES, ATTEMPTS), unique=True, min_size=2, max_size=10))
def test_different_children_have_different_names(children: list[tuple[str, str, int]]) -> None:
    assert len({names.child(*child) for child in children}) == len(children)


@given(st.text(alphabet="ab-", min_size=40, max_size=62), ROLES, ATTEMPTS)
def test_long_names_with_the_same_head_stay_apart(head: str, role: str, number: int) -> None:
    assert names.child(f"a{head}1", role, number) != names.child(f"a{head}2", role, number)


@given(OBJECT_NAMES, st.lists(st.text(max_size=20), unique=True, min_size=2, max_size=5))
def test_a_config_map_is_named_by_its_content(name: str, contents: list[str]) -> None:
    assert len({names.config_map(name, "trainer", content) for content in contents}) == len(contents)
