"""Examples -> what is trained on and what is held out for the gate."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from runtime.config import LearnerConfig
from runtime.messages import Action, Example


def newest_per_situation(examples: Sequence[Example]) -> list[Example]:
    """One example for each (scope, text), oldest first: where answers contradict each other the newest stands."""
    newest: dict[tuple[str, str], Example] = {}
    for example in sorted(examples, key=lambda e: e.at):
        newest.pop((example.scope, example.text), None)
        newest[example.scope, example.text] = example
    return list(newest.values())


def recent(examples: Sequence[Example], half_life: float) -> list[Example]:
    """Weights halved for every `half_life` newer examples; 0 leaves them as they are."""
    if not half_life:
        return list(examples)
    last = len(examples) - 1
    return [
        replace(example, weight=max(example.weight * 0.5 ** ((last - i) / half_life), 1e-3))
        for i, example in enumerate(examples)
    ]


def split(
    examples: Sequence[Example], config: LearnerConfig, render: Callable[[str, Action], str]
) -> tuple[list[Example], list[Example]]:
    """(train, held out). The choice hangs on the text alone, so an item stays held out from cycle to cycle; the only
    example of an answer is always trained on."""
    answers = Counter((e.scope, render(e.scope, e.action)) for e in examples)
    wanted = min(config.holdout_limit, int(len(examples) * config.holdout))
    held: set[str] = set()
    for example in sorted(examples, key=lambda e: _rank(e, config.seed)):
        key = (example.scope, render(example.scope, example.action))
        if len(held) >= wanted:
            break
        if answers[key] > 1 and _share(example, config.seed) < 2 * config.holdout:
            held.add(example.id)
            answers[key] -= 1
    return [e for e in examples if e.id not in held], [e for e in examples if e.id in held]


def _rank(example: Example, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}|{example.scope}|{example.text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _share(example: Example, seed: int) -> float:
    return _rank(example, seed) / 2**64
