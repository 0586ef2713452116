"""Between items and epochs: in every epoch most situations lack other words, so that no single word is all the weights go by.

Word dropout, in training only. What the answer itself names is never left out: nobody should learn to name what was not said.
"""

from __future__ import annotations

import random
import re

from msgspec.structs import replace

from runtime.messages import Example

VARIED = 0.75  # of the examples lack words in an epoch; the others are as they were said
PIECE = re.compile(r"\s*\S+")
WORD = re.compile(r"\w+")


def thinned(example: Example, share: float, draw: random.Random) -> Example:
    """The example without about this share of its words, or as it is; at least one word is left."""
    if draw.random() >= VARIED:
        return example
    named = _words(" ".join(map(str, example.action.arguments.values())))
    pieces = PIECE.findall(example.text)
    kept = [piece for piece in pieces if _words(piece) & named or draw.random() >= share]
    return replace(example, text="".join(kept).strip()) if kept and len(kept) < len(pieces) else example


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.casefold()))
