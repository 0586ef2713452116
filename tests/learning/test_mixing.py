"""Batches: every item once, and in every batch as many anchors as there are in all, give or take one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.mixing import batches


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 9))
def test_every_item_once_and_anchors_evenly(anchors: list[bool], size: int) -> None:
    numbers = list(range(len(anchors)))
    found = batches(numbers, anchors, size)
    assert sorted(i for batch in found for i in batch) == numbers
    assert [len(batch) for batch in found] == [min(size, len(anchors) - at) for at in range(0, len(anchors), size)]
    for batch in found:
        expected = len(batch) * sum(anchors) / len(anchors)
        assert abs(sum(anchors[i] for i in batch) - expected) < 1


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_where_at_least_half_are_anchors_at_least_half_of_every_batch_are(anchors: list[bool]) -> None:
    anchors += [True] * len(anchors)
    for batch in batches(list(range(len(anchors))), anchors, 8):
        assert sum(anchors[i] for i in batch) >= len(batch) // 2


def test_without_anchors_the_order_stays() -> None:
    assert batches([4, 2, 0, 1, 3], [False] * 5, 2) == [[4, 2], [0, 1], [3]]
    assert batches([4, 2, 0, 1, 3], [True] * 5, 2) == [[4, 2], [0, 1], [3]]
