"""Packing: every row is in one group, no group is too full, and little room is wasted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posttrain_training.preparation.packing import packed

LENGTHS = st.lists(st.integers(min_value=1, max_value=64), max_size=200)


@given(LENGTHS)
def test_every_row_is_in_one_group_that_holds_it(lengths: list[int]) -> None:
    groups = packed(lengths, capacity=64)
    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in group) <= 64 for group in groups)


@given(LENGTHS)
def test_few_groups_are_needed_and_the_same_rows_make_the_same(lengths: list[int]) -> None:
    fewest = -(-sum(lengths) // 64)
    assert len(packed(lengths, capacity=64)) <= 2 * fewest
    assert packed(lengths, capacity=64) == packed(list(lengths), capacity=64)


def test_a_short_row_goes_where_it_leaves_the_least_room() -> None:
    assert packed([6, 7, 3], capacity=10) == [[1, 2], [0]]


def test_a_row_that_is_longer_than_a_group_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 1 has 11 tokens, a group at most 10"):
        packed([3, 11], capacity=10)
