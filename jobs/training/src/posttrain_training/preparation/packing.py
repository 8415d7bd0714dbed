"""Several rows in one: best-fit decreasing, which wastes little and keeps every row whole."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def packed(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Groups of row numbers whose lengths add up to at most ``capacity``; each row is in one group.

    The longest row is placed first, each in the fullest group that has room. The same lengths make the same groups.
    Raises ``ValueError`` for a row that is longer than a group.
    """
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[number]
        if length > capacity:
            raise ValueError(f"row {number} has {length} tokens, a group at most {capacity}")
        at = bisect_left(room, (length, -1))
        if at == len(room):
            groups.append([number])
            group, left = len(groups) - 1, capacity
        else:
            left, group = room.pop(at)
            groups[group].append(number)
        insort(room, (left - length, group))
    return groups
