"""Items -> batches of one training pass: what was right already is spread evenly, so that every step holds on to it.

Corrections are where the model was wrong; a batch of them alone pulls it away from what it does well (S. Agarwal et al. 2023).
Anchors are accepted decisions and corrections that what serves has learnt. Each item comes once a pass: see DECISIONS.md for
why no anchor comes more often.
"""

from __future__ import annotations

from collections.abc import Sequence


def batches(numbers: Sequence[int], anchors: Sequence[bool], size: int) -> list[list[int]]:
    """Batches of `size` of these items, each with the same share of anchors, give or take one. `numbers` is in order of
    length and stays so among anchors and among the others, so that a batch's items are of similar length."""
    old = [i for i in numbers if anchors[i]]
    new = [i for i in numbers if not anchors[i]]
    found, begun, begun_old = [], 0, 0
    while begun < len(numbers):
        end = min(begun + size, len(numbers))
        end_old = len(old) * end // len(numbers)
        found.append([*old[begun_old:end_old], *new[begun - begun_old : end - end_old]])
        begun, begun_old = end, end_old
    return found
