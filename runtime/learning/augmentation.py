"""Between curation and training: more examples from few, with another room, number or word of the schema in text and answer.

Only what is copied from the text is swapped: a value that stands there once, as whole words, and of an argument whose value
is the one the text names in nearly all examples. (`light dim` -> lamp dim may be a coincidence; `light dim` -> lamp bright,
said elsewhere, shows that it is one.)
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from runtime.catalogue import Catalogue, Schema
from runtime.messages import Action, Example, derived_id

COPIED = 0.9  # least share of the texts naming a value of an argument whose answer has that value
NUMBER = re.compile(r"(?<![\w.,:-])-?\d+(?:\.\d+)?(?![\w-]|[.,:]\d)")

Argument = tuple[str, str, str]  # scope, tool, name


def augmented(
    examples: Sequence[Example], catalogues: Mapping[str, Catalogue], *, copies: int, seed: int
) -> list[Example]:
    """Every example, each followed by at most `copies` variants that share its weight with it; the same seed gives the
    same variants."""
    copied = _copied(examples, catalogues)
    taken = {(example.scope, example.text) for example in examples}  # a variant contradicts nothing that was said
    out: list[Example] = []
    for example in examples:
        family = [example]
        for variant in _variants(example, catalogues, copied, copies, seed):
            if len(family) <= copies and (variant.scope, variant.text) not in taken:
                taken.add((variant.scope, variant.text))
                family.append(variant)
        out += [replace(e, weight=e.weight / len(family)) for e in family]
    return out


def _variants(
    example: Example, catalogues: Mapping[str, Catalogue], copied: set[Argument], copies: int, seed: int
) -> list[Example]:
    """All of them for words, some for numbers, in random order."""
    draw = random.Random(f"{seed}|{example.id}")
    found = []
    for name, schema in _arguments(example, catalogues):
        if (example.scope, example.action.tool, name) in copied and _alone(example, name, schema):
            old = example.action.arguments[name]
            others = [new for new in _others(old, schema, copies, draw) if not _places(example.text, _spell(new))]
            found += [_swapped(example, name, old, new) for new in others]
    valid = [variant for variant in found if catalogues[example.scope].allows(variant.action)]
    draw.shuffle(valid)
    return valid


def _arguments(example: Example, catalogues: Mapping[str, Catalogue]) -> Iterator[tuple[str, Schema]]:
    """The arguments of the right answer that have a closed set of values; none if nobody said what is right."""
    catalogue = catalogues.get(example.scope)
    if catalogue is None or example.reward <= 0 or not catalogue.allows(example.action):
        return
    schemas = catalogue.tool(example.action.tool).arguments
    for name, value in example.action.arguments.items():
        if _speakable(value) and ("enum" in schemas[name] or _bounds(schemas[name])):
            yield name, schemas[name]


def _copied(examples: Sequence[Example], catalogues: Mapping[str, Catalogue]) -> set[Argument]:
    """The arguments whose value is what the text says, as far as the examples show."""
    agree: Counter[Argument] = Counter()
    named: Counter[Argument] = Counter()
    for example in examples:
        for name, schema in _arguments(example, catalogues):
            words = _named(example.text, schema)
            key = (example.scope, example.action.tool, name)
            agree[key] += _spell(example.action.arguments[name]).lower() in words
            named[key] += bool(words)
    return {key for key, count in agree.items() if count and count >= COPIED * named[key]}


def _named(text: str, schema: Schema) -> set[str]:
    """The values of an argument that the text names, in lower case."""
    if "enum" in schema:
        return {_spell(value).lower() for value in schema["enum"] if _places(text, _spell(value))}
    low, high = _bounds(schema) or (math.inf, -math.inf)
    return {number for number in NUMBER.findall(text) if low <= float(number) <= high}


def _alone(example: Example, name: str, schema: Schema) -> bool:
    """The value stands in the text exactly once, not inside a longer one, and is that of no other argument."""
    value = _spell(example.action.arguments[name])
    places = _places(example.text, value)
    if len(places) != 1 or example.text[slice(*places[0])] != value:
        return False
    longer = (_spell(v) for v in schema.get("enum", ()) if _places(_spell(v), value) and _spell(v) != value)
    if any(_places(example.text, other) for other in longer):
        return False
    return [_spell(v) for v in example.action.arguments.values()].count(value) == 1


def _others(old: Any, schema: Schema, count: int, draw: random.Random) -> list[Any]:
    """Other allowed values: all words, or `count` numbers with as many decimals."""
    if "enum" in schema:
        return [value for value in schema["enum"] if value != old and _speakable(value)]
    low, high = _bounds(schema) or (old, old)
    step = 10 ** len(_spell(old).partition(".")[2])
    first, last = math.ceil(low * step), math.floor(high * step)
    drawn = dict.fromkeys(draw.randint(first, last) for _ in range(count if first <= last else 0))
    return [type(old)(n / step if step > 1 else n) for n in drawn]


def _speakable(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _bounds(schema: Schema) -> tuple[float, float] | None:
    """The range of a number, if it has two ends."""
    if schema.get("type") not in ("integer", "number") or not {"minimum", "maximum"} <= schema.keys():
        return None
    return schema["minimum"], schema["maximum"]


def _swapped(example: Example, name: str, old: Any, new: Any) -> Example:
    [(start, end)] = _places(example.text, _spell(old))
    text = example.text[:start] + _spell(new) + example.text[end:]
    action, rejected = _with(example.action, name, new), example.rejected
    if rejected is not None and rejected.arguments.get(name) == old:  # the same room, wrongly treated
        rejected = _with(rejected, name, new)
    return replace(
        example, id=derived_id("au", example.id, text), text=text, action=action,
        rejected=None if rejected == action else rejected,
    )  # fmt: skip


def _with(action: Action, name: str, value: Any) -> Action:
    return replace(action, arguments={**action.arguments, name: value})


def _places(text: str, value: str) -> list[tuple[int, int]]:
    """Where a value stands as whole words, in any case; `5` stands neither in `5.5` nor in `12:5` nor in `-5`."""
    pattern = rf"(?<![\w-])(?<!\d[.,:]){re.escape(value)}(?![\w-])(?![.,:]\d)" if value else r"(?!)"
    return [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]


def _spell(value: Any) -> str:
    """As people write it: 21, not 21.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
