"""Examples -> what each of them counts, what is trained on and what is held out for the gate.

The way: `doubting` leaves out whom nobody believes, `duplicates` makes one example of a situation, `weighed` says what it
counts, `split` keeps some for the gate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from runtime.config import LearnerConfig
from runtime.learning import balance
from runtime.learning.duplicates import canonical
from runtime.messages import Action, Example, portion


def recent(examples: Sequence[Example], half_life: float) -> list[Example]:
    """Weights halved for every `half_life` newer examples; 0 leaves them as they are."""
    if not half_life:
        return list(examples)
    last = len(examples) - 1
    return [
        replace(example, weight=max(example.weight * 0.5 ** ((last - i) / half_life), 1e-3))
        for i, example in enumerate(examples)
    ]


def weighed(examples: Sequence[Example], config: LearnerConfig, trust: Callable[[str], float]) -> list[Example]:
    """What each counts: less if it is old (`half_life`), if its source is often contradicted (`trust`), if its answer is
    far commoner than others (`balance`), or if nearly everything is its source's (`source_cap`)."""
    believed = [
        replace(example, weight=max(example.weight * trust(example.source), 1e-3))
        for example in recent(examples, config.half_life)
    ]
    return balance.capped(balance.even(believed, config.balance), config.source_cap)


def known(example: Example, trained: Collection[str]) -> bool:
    """True if weights that were trained on the feedback `trained` have seen this situation's answer."""
    return example.id in trained or any(id in trained for id in example.also)


def split(
    examples: Sequence[Example],
    config: LearnerConfig,
    render: Callable[[str, Action], str],
    trained: Collection[str] = (),
) -> tuple[list[Example], list[Example]]:
    """(train, held out). The choice hangs on the text alone, so an item stays held out from cycle to cycle.

    The only example of an answer is always trained on, and so is what the champion was trained on (`trained`, ids):
    held out, it would let the champion win with answers that it has seen.
    """
    answers = Counter((e.scope, render(e.scope, e.action)) for e in examples)
    held: set[str] = set()
    for example in sorted(examples, key=lambda e: _share(e, config.seed)):
        key = (example.scope, render(example.scope, example.action))
        if len(held) >= config.holdout_limit or _share(example, config.seed) >= config.holdout:
            break
        if answers[key] > 1 and not known(example, trained):
            held.add(example.id)
            answers[key] -= 1
    return [e for e in examples if e.id not in held], [e for e in examples if e.id in held]


def held_back(example: Example, share: float, seed: int) -> bool:
    """True for this share of all situations, by their text alone; independent of what `split` chooses."""
    return _share(example, seed + 1) < share


def _share(example: Example, seed: int) -> float:
    """A number in [0, 1) that hangs on the situation alone."""
    return portion(str(seed), example.scope, canonical(example.text))
