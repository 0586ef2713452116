"""What people said -> one example a situation: words that differ in nothing but case, blanks and punctuation are the same.

A situation that comes up often counts more than one that came up once, but at most MOST times, or the commonest evening of
a house would drown all others.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from runtime.messages import Action, Example

MOST = 3.0  # times an example counts at most, however often it was said
NUMBER = re.compile(r"[-\u2212]?\d+(?:[.,:]\d+)*")  # `-3`, `19.4` and `7:30` are not 3, 194 and 730


@lru_cache(maxsize=32768)  # asked of every lesson at every cycle and dispute, on the loop
def canonical(text: str) -> str:
    """The text without what does not change its meaning; itself where nothing else is left of it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    parts, end = [], 0
    for number in NUMBER.finditer(folded):
        parts += [_plain(folded[end : number.start()]), number[0]]
        end = number.end()
    parts.append(_plain(folded[end:]))
    return " ".join("".join(parts).split()) or text


def _plain(text: str) -> str:
    return "".join(" " if unicodedata.category(sign)[0] in "PZC" else sign for sign in text)


def situations(examples: Iterable[Example]) -> dict[tuple[str, str], list[Example]]:
    """(scope, canonical text) -> all words on it, oldest first."""
    found: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: e.at):
        found[example.scope, canonical(example.text)].append(example)
    return found


def merged(examples: Sequence[Example]) -> list[Example]:
    """One example a situation, oldest first: the newest, with the weight of all that say the same, at most MOST."""
    return sorted((_one(words) for words in situations(examples).values()), key=lambda e: e.at)


def _one(words: Sequence[Example]) -> Example:
    newest = words[-1]
    same = [word for word in words if _says(word) == _says(newest)]
    weight = max(newest.weight, min(MOST, sum(word.weight for word in same)))
    return replace(newest, weight=weight, also=tuple(word.id for word in same[:-1]))


def _says(word: Example) -> tuple[bytes, bool]:
    return answer(word.action), word.reward > 0


def answer(action: Action) -> bytes:
    """An action as something that can be counted and compared."""
    return msgspec.json.encode(action, order="sorted")
