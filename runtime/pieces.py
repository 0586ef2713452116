"""A situation's text -> the pieces it is made of, each with the text that is left without it: what an explanation leaves out.

What sensors say is cut at its commas, as `words.Vocabulary` wrote it; what a person says is cut into words. There are never
more than MOST pieces: of a long text neighbours are left out together.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.messages import Scalar

MOST = 24  # pieces of one situation; each is a pass of the model
PHRASES = 12  # of them for the sensors, if somebody speaks
LISTED, SHORT = 3, 4  # a text of so many parts between commas, none of more words than that, is a list of readings
JOINT = ", "
WORD = re.compile(r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)")


@dataclass(frozen=True)
class Piece:
    """`text` as people read it; `rest` is the situation without it."""

    text: str
    rest: str


def cut(text: str, fields: Mapping[str, Scalar]) -> list[Piece]:
    """The pieces in order; none if there are fewer than two. `fields` are the percept's: they say what was spoken."""
    world, spoken, tail = _spoken(text, fields)
    if not spoken:
        phrases = world.split(JOINT)
        listed = len(phrases) >= LISTED and all(len(phrase.split()) <= SHORT for phrase in phrases)
        made = _cut(phrases, JOINT, MOST, str) if listed else _cut(WORD.findall(world), "", MOST, str)
    else:
        said = WORD.findall(spoken)
        made = _cut(world.split(JOINT), JOINT, PHRASES, lambda rest: tail(rest, spoken))
        made += _cut(said, "", MOST - len(made), lambda rest: tail(world, rest))
    return made if len(made) > 1 else []


def _spoken(text: str, fields: Mapping[str, Scalar]) -> tuple[str, str, Callable[[str, str], str]]:
    """(what the sensors say, what a person says, how to put the two together)."""
    found = re.fullmatch(r'(?P<world>.*?); (?P<who>[^;"]+) says: "(?P<says>.*)"', text, re.DOTALL)
    if not fields.get("says") or found is None:
        return text, "", lambda world, _: world
    return found["world"], found["says"], lambda world, says: f'{world}; {found["who"]} says: "{says}"'


def _cut(parts: Sequence[str], joint: str, most: int, whole: Callable[[str], str]) -> list[Piece]:
    """At most `most` pieces of neighbouring parts, alike in length; `whole` makes a situation of what is left of them."""
    count = min(len(parts), most)
    edges = [round(i * len(parts) / count) for i in range(count + 1)] if count else []
    return [
        Piece(joint.join(parts[start:end]).strip(), whole(joint.join([*parts[:start], *parts[end:]]).strip()))
        for start, end in itertools.pairwise(edges)
    ]
